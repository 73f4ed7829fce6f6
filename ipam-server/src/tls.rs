//! TLS by rustls: certificates from files, read anew when they change.

use anyhow::{Context, Result, bail};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};
use tls_listener::{
    AsyncTls,
    rustls::{
        Accept, TlsAcceptor,
        rustls::{
            RootCertStore, ServerConfig,
            crypto::ring,
            pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
            server::WebPkiClientVerifier,
        },
        server::TlsStream,
    },
};
use tokio::{net::TcpStream, sync::watch, time::MissedTickBehavior};

use crate::peer::Certificate;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where certificates are; all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The service's certificate, its own first, then those that lead to the CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs whose client certificates name nodes.
    pub client_ca: Option<PathBuf>,
    /// Client certificates that count no more.
    pub client_crl: Option<PathBuf>,
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref(), self.client_crl.as_ref()]
            .into_iter()
            .flatten()
    }

    /// Whatever they hold now, to see a change by; a missing file is one too.
    fn contents(&self) -> Vec<Option<Vec<u8>>> {
        self.all().map(|path| fs::read(path).ok()).collect()
    }

    fn config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("no version of TLS is there")?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots
                        .add(certificate)
                        .with_context(|| format!("{}: no CA certificate", path.display()))?;
                }
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated();
                if let Some(path) = &self.client_crl {
                    verifier = verifier
                        .with_crls(revocations(path)?)
                        .only_check_end_entity_revocation()
                        .allow_unknown_revocation_status();
                }
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.with_context(|| format!("{}: no usable client CA", path.display()))?,
                )
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("{}: no private key in PEM", self.key.display()))?;
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key)
            .with_context(|| format!("{} and {}", self.cert.display(), self.key.display()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn warn_of_readable_key(&self) {
        let mode = fs::metadata(&self.key).map(|meta| meta.permissions().mode()).unwrap_or_default();
        if mode & 0o077 != 0 {
            tracing::warn!(key = %self.key.display(), mode = format!("{:o}", mode & 0o777), "others can read the private key: chmod 600");
        }
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let all = read().with_context(|| format!("{}: no certificate in PEM", path.display()))?;
    if all.is_empty() {
        bail!("{}: no certificate in PEM", path.display());
    }
    Ok(all)
}

fn revocations(path: &PathBuf) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let read = || CertificateRevocationListDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let all = read().with_context(|| format!("{}: no revocation list in PEM", path.display()))?;
    // A file that is being written, or another one, must not make revoked certificates count again.
    if all.is_empty() {
        bail!("{}: no revocation list in PEM", path.display());
    }
    Ok(all)
}

/// Accepts connections by what the files say now.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and goes on reading them whenever they change: for as long as the returned task runs.
    ///
    /// # Errors
    /// They are unusable; later only a warning is.
    pub(crate) fn read(files: TlsFiles) -> Result<(Self, impl Future<Output = ()>)> {
        let seen = files.contents();
        let (sender, current) = watch::channel(Arc::new(files.config()?));
        files.warn_of_readable_key();
        Ok((Self { current }, keep_reading(files, seen, sender)))
    }
}

async fn keep_reading(
    files: TlsFiles,
    mut seen: Vec<Option<Vec<u8>>>,
    sender: watch::Sender<Arc<ServerConfig>>,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = files.contents();
        if now == seen {
            continue;
        }
        // Certificate and key change one after the other: what does not fit together is tried again when it
        // has changed again, and the last good ones stay meanwhile.
        match files.config() {
            Ok(config) => {
                tracing::info!("certificates are read anew");
                sender.send_replace(Arc::new(config));
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "new certificates are not usable: the old ones stay"
                );
            }
        }
        seen = now;
    }
}

impl AsyncTls<TcpStream> for Tls {
    type Stream = TlsStream<TcpStream>;
    type Error = std::io::Error;
    type AcceptFuture = Accept<TcpStream>;

    fn accept(&self, stream: TcpStream) -> Self::AcceptFuture {
        let config = Arc::clone(&self.current.borrow());
        TlsAcceptor::from(config).accept(stream)
    }
}

/// What the client certificate of a connection says, if it showed one.
pub(crate) fn certificate(stream: &TlsStream<TcpStream>) -> Option<Certificate> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    Some(match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => Certificate::of_names(leaf.valid_dns_names()),
        Err(error) => Certificate::Useless(format!("the client certificate cannot be read: {error}")),
    })
}
