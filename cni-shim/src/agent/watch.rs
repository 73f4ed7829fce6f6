//! Waiting for the kernel's word that a link or a route has changed.

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Groups of `rtnetlink(7)`: links, and routes of both families. Neighbours change all the time, and proxies among
/// them tell nobody when they go.
const GROUPS: [u32; 3] = [1, 7, 11];

/// Large enough for any message; what is in it does not matter.
const BUFFER: usize = 64 * 1024;

/// A socket that hears of changes in the calling thread's namespace.
#[derive(Debug)]
pub(super) struct Watch {
    socket: Socket,
}

impl Watch {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Waits for a change, but at least until the one and at most until the other.
    pub(super) fn wait(&mut self, least: Instant, most: Instant) {
        std::thread::sleep(least.saturating_duration_since(Instant::now()));
        // What came meanwhile is one change with what comes now.
        while !self.drain() {
            let left = most.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.readable(left) {
                return;
            }
        }
    }

    /// Reads all there is; whether there was anything. Lost messages are a change like any other.
    fn drain(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut buffer = Vec::with_capacity(BUFFER);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOBUFS: more happened than was kept.
                Err(_) => return true,
            }
        }
    }

    fn readable(&self, within: Duration) -> bool {
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
    }
}
