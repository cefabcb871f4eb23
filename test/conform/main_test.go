package conform_test

import (
	"testing"

	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }
