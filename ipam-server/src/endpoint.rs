//! Where requests come in: plain TCP, TLS, a unix socket.

use crate::{
    peer::{Peer, Place},
    tls::{self, Tls},
};
use anyhow::{Context, Result, bail};
use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use std::{
    fmt, fs,
    future::IntoFuture,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};
use tls_listener::{TlsListener, rustls::server::TlsStream};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream, unix},
    sync::watch,
};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and port.
    Tcp(SocketAddr),
    /// A unix socket at this path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("the socket's path is not absolute: write unix:///path/of/socket".to_owned()),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "give ADDRESS:PORT, for example 127.0.0.1:8420, or unix:///path/of/socket".to_owned()
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub(crate) enum Endpoint {
    Plain(Plain),
    Secure(Box<Secure>),
    Socket(Socket),
}

impl Endpoint {
    /// Binds; TCP is TLS where there is any.
    pub(crate) async fn bind(listen: &Listen, tls: Option<&Tls>) -> Result<Self> {
        let bound = match listen {
            Listen::Unix(path) => return Socket::bind(path).await.map(Self::Socket),
            Listen::Tcp(address) => TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address}: stop what listens there, or choose another --listen")
            })?,
        };
        Ok(match tls {
            None => Self::Plain(Plain(bound)),
            Some(tls) => Self::Secure(Box::new(Secure(TlsListener::new(tls.clone(), bound)))),
        })
    }

    /// As a client names it.
    pub(crate) fn url(&self) -> Result<String> {
        let address = "the listener has no address";
        Ok(match self {
            Self::Plain(plain) => format!("http://{}", plain.local_addr().context(address)?),
            Self::Secure(secure) => format!("https://{}", secure.local_addr().context(address)?),
            Self::Socket(socket) => format!("unix://{}", socket.path.display()),
        })
    }

    /// Answers requests until `stop` changes, then those in flight.
    pub(crate) async fn answer(self, router: Router, stop: watch::Receiver<bool>) -> io::Result<()> {
        match self {
            Self::Plain(plain) => answer(plain, router, stop).await,
            Self::Secure(secure) => answer(*secure, router, stop).await,
            Self::Socket(socket) => answer(socket, router, stop).await,
        }
    }
}

async fn answer<L>(listener: L, router: Router, mut stop: watch::Receiver<bool>) -> io::Result<()>
where
    L: Listener,
    L::Addr: fmt::Debug,
    Peer: for<'s> Connected<IncomingStream<'s, L>>,
{
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move {
            // The sender lives as long as this future; an error means that it is gone, so stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .into_future()
        .await
}

/// An answer is one small segment: it must not wait for the acknowledgement of the one before.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}

/// TCP as it comes.
#[derive(Debug)]
pub(crate) struct Plain(TcpListener);

impl Listener for Plain {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        send_at_once(&stream);
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Plain>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Plain>) -> Self {
        Self { place: Place::Network(*stream.remote_addr()), certificate: None }
    }
}

/// TLS; handshakes of many go on side by side.
pub(crate) struct Secure(TlsListener<TcpListener, Tls>);

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secure").field(self.0.listener()).finish()
    }
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    send_at_once(stream.get_ref().0);
                    return (stream, address);
                }
                // What anyone can cause is no trouble of ours.
                Err(
                    error @ (tls_listener::Error::TlsAcceptError { .. }
                    | tls_listener::Error::HandshakeTimeout { .. }),
                ) => {
                    tracing::debug!(%error, "a handshake came to nothing");
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    // Out of files, for one: ends when others end theirs.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.listener().local_addr()
    }
}

impl Connected<IncomingStream<'_, Secure>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Secure>) -> Self {
        Self { place: Place::Network(*stream.remote_addr()), certificate: tls::certificate(stream.io()) }
    }
}

/// A unix socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    async fn bind(path: &Path) -> Result<Self> {
        let shown = path.display();
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            match UnixStream::connect(path).await {
                // Left by one that was killed.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // Whatever else happens, somebody listens: busy, not for us, or no stream at all.
                _ => bail!("another service listens at {shown}: stop it, or choose another --listen"),
            }
            fs::remove_file(path).with_context(|| format!("cannot remove the dead socket {shown}"))?;
        }
        let listener = UnixListener::bind(path).with_context(|| {
            format!("cannot listen at {shown}: its directory has to be there, and the path free")
        })?;
        // Whoever connects is known by the kernel's word, so the file keeps nobody out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .with_context(|| format!("cannot open {shown} to others"))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket's file is gone already");
        }
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Socket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        let uid = stream.io().peer_cred().ok().map(|cred| cred.uid());
        Self { place: Place::Socket(uid), certificate: None }
    }
}
