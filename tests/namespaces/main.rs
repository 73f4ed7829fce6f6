//! The whole system in namespaces: the real service, the real shim, real packets; the README and the demo.
//! Needs root.

mod agent;
mod churn;
mod clocks;
mod connectivity;
mod credentials;
mod deletion;
mod demo;
mod fabric;
mod faults;
mod figures;
mod host_ports;
mod install;
mod leaving;
mod neighbours;
mod pages;
mod readme;
mod reboot;
mod refusals;
mod resize;
mod spoofing;
mod storage;
mod strangers;
mod unreachable;
