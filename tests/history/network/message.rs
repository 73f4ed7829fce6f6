use std::io::{self, ErrorKind};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Longest message that is read.
const LONGEST: usize = 16 << 20;

/// A whole HTTP/1.1 message as it came, of a length that its head says.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// As it came.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the answer of somebody who cannot answer now.
    pub(super) fn is_unavailable(&self) -> bool {
        self.0.starts_with(b"HTTP/1.1 503 ")
    }

    /// The next request or answer; `None` where the connection ends before it.
    pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(1024);
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            if bytes.len() > LONGEST {
                return Err(ErrorKind::InvalidData.into());
            }
        };
        let whole = head + body_length(&bytes[..head])?;
        while bytes.len() < whole {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        // Neither end sends the next before it has the answer to this.
        if bytes.len() > whole { Err(ErrorKind::InvalidData.into()) } else { Ok(Some(Self(bytes))) }
    }
}

/// What the head says of the body's length; without a word there is none.
fn body_length(head: &[u8]) -> io::Result<usize> {
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    let head = std::str::from_utf8(head).map_err(|_| invalid())?;
    let mut length = 0;
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok().filter(|length| *length <= LONGEST).ok_or_else(invalid)?;
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::new(ErrorKind::InvalidData, "in pieces of unknown number"));
        }
    }
    Ok(length)
}
