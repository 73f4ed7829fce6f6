//! Support for the whole-system tests and the demo: a VNet in a box.
//!
//! [`lab`] builds it out of network namespaces: a bridge as the fabric, a
//! management VM with the real `ipam-server`, nodes with the real `cni-shim`,
//! and plain VMs.

pub mod lab;
