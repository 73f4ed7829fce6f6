//! The two ends of a conversation, for tests of the lab: TCP, UDP, and SCTP by hand, as kernels may do without it.
//!
//! `talk answer tcp 80 NAME` answers everyone with NAME and the address it sees them come from, until its standard
//! input ends. `talk ask tcp ADDRESS 8080 [FROM]` prints the answer, asking from port FROM where one is given.

mod sctp;

use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["answer", protocol, port, name] => answer(protocol, port.parse()?, name),
        ["ask", protocol, address, port] => ask(protocol, address.parse()?, port.parse()?, 0),
        ["ask", protocol, address, port, from] => {
            ask(protocol, address.parse()?, port.parse()?, from.parse()?)
        }
        _ => bail!("usage: talk answer PROTOCOL PORT NAME | talk ask PROTOCOL ADDRESS PORT [FROM]"),
    }
}

fn answer(protocol: &str, port: u16, name: &str) -> Result<()> {
    let name = name.to_owned();
    let words = move |from: IpAddr| format!("{name} {}", from.to_canonical());
    // Both families.
    let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    match protocol {
        "tcp" => {
            let listener = TcpListener::bind(at)?;
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    if let Ok(from) = stream.peer_addr() {
                        // Who has gone needs no answer.
                        drop(stream.write_all(words(from.ip()).as_bytes()));
                    }
                }
            });
        }
        "udp" => {
            let socket = UdpSocket::bind(at)?;
            thread::spawn(move || {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    drop(socket.send_to(words(from.ip()).as_bytes(), from));
                }
            });
        }
        "sctp" => sctp::answer(port, words)?,
        other => bail!("no protocol {other}"),
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn ask(protocol: &str, address: IpAddr, port: u16, from: u16) -> Result<()> {
    let to = SocketAddr::new(address, port);
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let answer = match protocol {
        "tcp" => {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            answer
        }
        "udp" => {
            let socket = UdpSocket::bind(SocketAddr::new(any, from))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"who are you?")?;
            let mut answer = [0; 256];
            let length = socket.recv(&mut answer)?;
            answer[..length].to_vec()
        }
        "sctp" => sctp::ask(to, PATIENCE)?,
        other => bail!("no protocol {other}"),
    };
    println!("{}", String::from_utf8(answer).context("an answer that is no text")?);
    Ok(())
}
