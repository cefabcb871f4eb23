package scratch

import (
	"os"

	"golang.org/x/sys/unix"
)

// spread asks ext4 to put the directories inside dir far from each other (chattr +T).
//
// ext4 does not reuse the inode of a file for some seconds after its deletion, and looks for a free one by walking over
// those. A test that starts a server after another was deleted beside it spends 0.8 s there, which is eight times the
// copying itself (measured on Linux 6.18). On other file systems this fails and is not needed.
func spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	const topDir = 0x00020000 // FS_TOPDIR_FL of linux/fs.h
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topDir))
	}
}
