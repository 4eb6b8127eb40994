package v4l2

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Structures and numbers of include/uapi/linux/videodev2.h, by the kernel's names in
// brackets. Their layout is that of machines with 64 bits, arm64 and amd64 alike; the
// sizes, which are part of the ioctls' numbers, are held below at compile time.

// capability [v4l2_capability] is the answer to VIDIOC_QUERYCAP.
type capability struct {
	driver       [16]byte
	card         [32]byte
	busInfo      [32]byte
	_            uint32 // version
	capabilities uint32 // of the whole device
	deviceCaps   uint32 // of this node, with capDeviceCaps
	_            [3]uint32
}

// fmtdesc [v4l2_fmtdesc]: one pixel format, by index.
type fmtdesc struct {
	index       uint32
	bufType     uint32
	_           uint32 // flags
	description [32]byte
	pixelformat uint32
	_           uint32 // mbusCode
	_           [3]uint32
}

// frmsizeenum [v4l2_frmsizeenum]: one size of a format, or a range of them:
// width and height, or min, max and step of width, then of height.
type frmsizeenum struct {
	index       uint32
	pixelformat uint32
	kind        uint32
	size        [6]uint32
	_           [2]uint32
}

// fract [v4l2_fract] is a duration in seconds here.
type fract struct{ numerator, denominator uint32 }

// frmivalenum [v4l2_frmivalenum]: one time per frame of a size, or min, max and step.
type frmivalenum struct {
	index         uint32
	pixelformat   uint32
	width, height uint32
	kind          uint32
	interval      [3]fract
	_             [2]uint32
}

const (
	discrete   = 1 // [V4L2_FRMSIZE_TYPE_DISCRETE, V4L2_FRMIVAL_TYPE_DISCRETE]
	continuous = 2
	stepwise   = 3
)

// pixFormat [v4l2_pix_format] in its place in v4l2_format, whose union is of 200
// octets and, as another of its members has pointers, begins at a multiple of 8.
type pixFormat struct {
	bufType      uint32
	_            uint32
	width        uint32 // pixels
	height       uint32
	pixelformat  uint32
	field        uint32
	bytesperline uint32
	sizeimage    uint32 // octets
	colorspace   uint32
	_            uint32 // priv
	_            uint32 // flags
	_            uint32 // ycbcrEnc
	quantization uint32
	_            uint32 // xferFunc
	_            [200 - 48]byte
}

// streamparm [v4l2_streamparm] with v4l2_captureparm in its union.
type streamparm struct {
	bufType      uint32
	capability   uint32
	_            uint32 // capturemode
	timeperframe fract
	_            uint32 // extendedmode
	_            uint32 // readbuffers
	_            [200 - 24]byte
}

// requestbuffers [v4l2_requestbuffers].
type requestbuffers struct {
	count   uint32
	bufType uint32
	memory  uint32
	_       uint32 // capabilities
	_       uint8  // flags
	_       [3]uint8
}

// buffer [v4l2_buffer].
type buffer struct {
	index     uint32
	bufType   uint32
	bytesused uint32
	flags     uint32
	_         uint32 // field
	_         uint32
	_         unix.Timeval // timestamp
	_         [16]byte     // timecode
	sequence  uint32
	memory    uint32
	offset    uint64 // of the union m: mem_offset in its first four octets, little endian
	length    uint32
	_         [3]uint32
}

// queryctrl [v4l2_queryctrl].
type queryctrl struct {
	id       uint32
	kind     uint32
	name     [32]byte
	minimum  int32
	maximum  int32
	step     int32
	standard int32 // default_value
	flags    uint32
	_        [2]uint32
}

// querymenu [v4l2_querymenu], which is packed: an integer menu has its value in the
// first eight octets of the name.
type querymenu struct {
	id    uint32
	index uint32
	name  [32]byte
	_     uint32
}

// control [v4l2_control].
type control struct {
	id    uint32
	value int32
}

// The sizes that the kernel has.
var (
	_ [104]byte = [unsafe.Sizeof(capability{})]byte{}
	_ [64]byte  = [unsafe.Sizeof(fmtdesc{})]byte{}
	_ [44]byte  = [unsafe.Sizeof(frmsizeenum{})]byte{}
	_ [52]byte  = [unsafe.Sizeof(frmivalenum{})]byte{}
	_ [208]byte = [unsafe.Sizeof(pixFormat{})]byte{}
	_ [204]byte = [unsafe.Sizeof(streamparm{})]byte{}
	_ [20]byte  = [unsafe.Sizeof(requestbuffers{})]byte{}
	_ [88]byte  = [unsafe.Sizeof(buffer{})]byte{}
	_ [68]byte  = [unsafe.Sizeof(queryctrl{})]byte{}
	_ [44]byte  = [unsafe.Sizeof(querymenu{})]byte{}
	_ [8]byte   = [unsafe.Sizeof(control{})]byte{}
)

const (
	capVideoCapture = 0x00000001 // [V4L2_CAP_…]
	capStreaming    = 0x04000000
	capDeviceCaps   = 0x80000000

	typeCapture  = 1 // [V4L2_BUF_TYPE_VIDEO_CAPTURE]
	memoryMmap   = 1 // [V4L2_MEMORY_MMAP]
	fieldNone    = 1 // [V4L2_FIELD_NONE]: whole frames
	bufFlagError = 0x40

	colorspaceJPEG   = 7 // [V4L2_COLORSPACE_JPEG], whose range is full by itself
	quantizationFull = 1 // [V4L2_QUANTIZATION_FULL_RANGE]

	parmTimePerFrame = 0x1000 // [V4L2_CAP_TIMEPERFRAME]

	ctrlInteger     = 1 // [V4L2_CTRL_TYPE_…]
	ctrlBoolean     = 2
	ctrlMenu        = 3
	ctrlIntegerMenu = 9

	ctrlDisabled  = 0x01 // [V4L2_CTRL_FLAG_…]
	ctrlReadOnly  = 0x04
	ctrlInactive  = 0x10
	ctrlWriteOnly = 0x40
	ctrlNext      = 0x80000000 // in an ID: the next one above it
)

// Directions of an ioctl's argument, as the kernel's _IOC has them.
const (
	dirWrite = 1
	dirRead  = 2
	dirBoth  = dirRead | dirWrite
)

// request is the number of an ioctl: direction, size of the argument, 'V' and number.
func request(dir, number uint, size uintptr) uint {
	return dir<<30 | uint(size)<<16 | 'V'<<8 | number
}

var (
	vidiocQuerycap           = request(dirRead, 0, unsafe.Sizeof(capability{}))
	vidiocEnumFmt            = request(dirBoth, 2, unsafe.Sizeof(fmtdesc{}))
	vidiocSFmt               = request(dirBoth, 5, unsafe.Sizeof(pixFormat{}))
	vidiocReqbufs            = request(dirBoth, 8, unsafe.Sizeof(requestbuffers{}))
	vidiocQuerybuf           = request(dirBoth, 9, unsafe.Sizeof(buffer{}))
	vidiocQbuf               = request(dirBoth, 15, unsafe.Sizeof(buffer{}))
	vidiocDqbuf              = request(dirBoth, 17, unsafe.Sizeof(buffer{}))
	vidiocStreamon           = request(dirWrite, 18, unsafe.Sizeof(int32(0)))
	vidiocStreamoff          = request(dirWrite, 19, unsafe.Sizeof(int32(0)))
	vidiocSParm              = request(dirBoth, 22, unsafe.Sizeof(streamparm{}))
	vidiocGCtrl              = request(dirBoth, 27, unsafe.Sizeof(control{}))
	vidiocSCtrl              = request(dirBoth, 28, unsafe.Sizeof(control{}))
	vidiocQueryctrl          = request(dirBoth, 36, unsafe.Sizeof(queryctrl{}))
	vidiocQuerymenu          = request(dirBoth, 37, unsafe.Sizeof(querymenu{}))
	vidiocEnumFramesizes     = request(dirBoth, 74, unsafe.Sizeof(frmsizeenum{}))
	vidiocEnumFrameintervals = request(dirBoth, 75, unsafe.Sizeof(frmivalenum{}))
)

// ioctl asks again where a signal came between.
func ioctl[T any](fd int, name string, number uint, arg *T) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(number), uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.ENODEV, unix.ENXIO:
			return fmt.Errorf("%s: %w", name, ErrGone)
		}
		return fmt.Errorf("%s: %w", name, errno)
	}
}

// text is what an array of the kernel's holds before its first 0.
func text(b []byte) string { return unix.ByteSliceToString(b) }
