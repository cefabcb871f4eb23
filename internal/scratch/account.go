package scratch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that server processes run as. Postgres refuses to run as root, so for root it is the user
// postgres; anybody else runs servers as himself.
type account struct {
	uid, gid int
	other    bool // the account differs from the user of this process
}

func serverAccount(ctx context.Context) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		// Another test process may be creating the user right now. Whose useradd succeeded does not matter, so its
		// error counts only if the user is still missing afterwards.
		out, addErr := exec.CommandContext(ctx, "useradd", "--system", "--user-group", "--no-create-home",
			"--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", "postgres").CombinedOutput()
		if u, err = user.Lookup("postgres"); err != nil {
			return account{}, fmt.Errorf("find the user to run Postgres as: %w; useradd: %w %s; "+
				"hint: Postgres does not run as root, create a system user named postgres", err, addErr, out)
		}
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return account{}, fmt.Errorf("read the ids of user postgres: %w", err)
	}
	return account{uid: uid, gid: gid, other: true}, nil
}

// command prepares a program to run as the account. It gets a session of its own, so that an interrupt typed at the
// terminal reaches this process and not the server, and no environment that could change how a server behaves.
func (a account) command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// own hands a file or directory over to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// reaches reports whether the account may enter dir and all its parents. Root's home is usually closed to others,
// which is why a cache inside it is useless for a server.
func (a account) reaches(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			dir = filepath.Dir(dir) // will be created, open
			continue
		}
		if err != nil {
			return false
		}
		bit := fs.FileMode(0o001)
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) == a.uid {
			bit = 0o100
		} else if int(st.Gid) == a.gid {
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// makeOpen creates a directory that the account can enter, whatever the umask of this process.
func makeOpen(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// CacheDir is where fetched programs and prepared clusters may stay between runs: $WEIR_CACHE, else the user's cache,
// else that of the machine. Server processes can read it.
func CacheDir(ctx context.Context) (string, error) {
	acct, err := serverAccount(ctx)
	if err != nil {
		return "", err
	}
	dir := os.Getenv("WEIR_CACHE")
	if dir == "" {
		if user, err := os.UserCacheDir(); err == nil && acct.reaches(user) {
			dir = filepath.Join(user, "weir")
		} else if os.Geteuid() == 0 {
			dir = "/var/cache/weir"
		} else {
			return "", fmt.Errorf("find a cache directory: %w; hint: set WEIR_CACHE to a directory", err)
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	for _, d := range []string{dir, filepath.Join(dir, "postgres")} {
		if err := makeOpen(d); err != nil {
			return "", fmt.Errorf("make the cache: %w; hint: set WEIR_CACHE to a directory you can write", err)
		}
	}
	if !acct.reaches(dir) {
		return "", fmt.Errorf("cache %s cannot be read by user %d, which runs the servers; "+
			"hint: set WEIR_CACHE to a directory whose parents everybody may enter", dir, acct.uid)
	}
	return filepath.Join(dir, "postgres"), nil
}
