// Package systemtest holds the tests of whole HALO networks: machines booted
// from the real images find each other, lose power, are cut off and come back,
// and no reading that was acknowledged is lost. They need QEMU and built
// images, and carry the build tag lab. What judges the frames between the
// machines needs neither.
package systemtest
