//! The whole system in namespaces: the real service, the real shim, real packets. Needs root.

mod fabric;
