//! The typed HTTP client of the service.
//!
//! ```no_run
//! # async fn example() -> Result<(), ipam_api::client::ClientError> {
//! use ipam_api::client::{Client, Page, Settings};
//!
//! let client = Client::new("http://127.0.0.1:8420".parse()?, Settings::default())?;
//! for node in client.nodes(&Page::default()).await?.value.items {
//!     println!("{} {:?}", node.name, node.addresses);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It takes no proxy from the environment, follows no redirect, reads the
//! system's certificates only where an `https` service is to be verified by
//! them ([`Roots::System`]), and runs on any tokio runtime, a `current_thread`
//! one included: a process that lives for one request pays for one connection.

mod allocations;
mod answer;
mod consistency;
mod credentials;
mod error;
mod events;
mod nodes;
mod options;
mod planning;
mod pools;
mod request;
mod reservations;
mod server;
mod subnets;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod vnets;

pub use allocations::AllocationFilter;
pub use answer::{AllPages, Answer, all_pages};
pub use error::{ClientError, Unreachability};
pub use events::EventFilter;
pub use nodes::{NodeDeletion, VmFate};
pub use options::{Apply, ETag, Page, Precondition, Token, Write};
pub use server::Server;
pub use tls::{Authorities, Identity, Roots};

use reqwest::{Url, redirect};
use std::time::Duration;

/// How a [`Client`] talks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole answer, the connection included.
    pub timeout: Duration,
    /// The credential, sent as a bearer token.
    pub token: Option<Token>,
    /// Who vouches for an `https` service.
    pub roots: Roots,
    /// The credential as a client certificate, shown to an `https` service that asks for one.
    pub identity: Option<Identity>,
}

impl Default for Settings {
    /// 2 s for a connection, 30 s for an answer, no credential, the system's certificates.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
            token: None,
            roots: Roots::System,
            identity: None,
        }
    }
}

/// A client of one service; cheap to clone, clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    server: Server,
    token: Option<Token>,
}

impl Client {
    /// A client of the service at `server`. Opens no connection yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidTls`] if nobody could vouch for an `https` service;
    /// [`ClientError::InvalidServer`] if the address cannot be used.
    pub fn new(server: Server, settings: Settings) -> Result<Self, ClientError> {
        let base = server.base()?;
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .tcp_nodelay(true)
            .user_agent(concat!("ipam-api/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = server.socket_path() {
            builder = builder.unix_socket(path);
        }
        let http = tls::set_up(builder, &server, settings.roots, settings.identity)?;
        Ok(Self { http, base, server, token: settings.token })
    }

    /// The service it talks to.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }
}
