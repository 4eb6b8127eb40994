// Package systemtest holds the tests of whole HALO networks: machines booted
// from the real images find each other, lose power, are cut off and come back,
// and no reading that was acknowledged is lost. It needs QEMU and built images;
// its tests carry the build tag lab.
package systemtest
