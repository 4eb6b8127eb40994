package verity

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

// The root hashes are what veritysetup 2.6.1 computes for blocks that repeat
// their own number (64 bits, little endian), with this salt:
//
//	veritysetup format --no-superblock --hash=sha256 --hash-offset=…
const salt = "00112233445566778899aabbccddeeff"

func data(t *testing.T, blocks int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := make([]byte, 0, blocks*block)
	for i := range blocks {
		for range block / 8 {
			b = binary.LittleEndian.AppendUint64(b, uint64(i))
		}
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRootHashIsVeritysetups(t *testing.T) {
	s, err := hex.DecodeString(salt)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		blocks int
		root   string
		size   int64 // of data and tree
	}{
		"one level, partly filled": {2, "5c0347e4c5a116c2f7e8ce8394c579a48f1fb0096c72cf0263ff74f1313d1897", 12288},
		"one level, full":          {128, "bacad0b451d95469b3cac76dbdde4d958ea19044670d5860f7dd6ef12419066c", 528384},
		"two levels":               {129, "6b6fd78c5a87bda04aeb8899dfcff0391dbbe8e03e8299828c322272038a097e", 540672},
		"three levels":             {16385, "a86c726cb65b2197f6156d86825e717b64419726008d29578f9cc22e656d12d6", 67653632},
	} {
		t.Run(name, func(t *testing.T) {
			f := data(t, tc.blocks)
			root, err := Append(f, int64(tc.blocks)*block, s)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(root); got != tc.root {
				t.Errorf("root hash: got %s, want %s", got, tc.root)
			}
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if st.Size() != tc.size || int64(tc.blocks)*block+Size(int64(tc.blocks)*block) != tc.size {
				t.Errorf("size: got %d, computed %d, want %d", st.Size(), int64(tc.blocks)*block+Size(int64(tc.blocks)*block), tc.size)
			}
		})
	}
}

func TestEveryBitCounts(t *testing.T) {
	const blocks = 130
	clean, err := Append(data(t, blocks), blocks*block, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 4095, 4096, blocks*block - 1} {
		f := data(t, blocks)
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		root, err := Append(f, blocks*block, nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(root) == string(clean) {
			t.Errorf("a flipped bit at %d does not change the root hash", at)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, size := range []int64{-4096, 0, 4096, 8191} {
		if _, err := Append(data(t, 2), size, nil); err == nil {
			t.Errorf("size %d: got no error", size)
		}
	}
	if _, err := Append(data(t, 2), 3*block, nil); err == nil {
		t.Error("data shorter than said: got no error")
	}
}
