//! Nodes that ask for addresses as fast as they are answered.

use crate::{figures::Figures, service::Service};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use ipam_api::{
    client::{Client, Write},
    names::{NodeName, PoolName},
    wire::{
        Allocator, BlockVersion, BootSeq, Claim, NODE_HEADER, NodeSpec, NodeStamp, Range, Role, Seq, Stamp,
        SyncRequest, TokenSpec,
    },
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Registrations at once while the ground is prepared.
const AT_ONCE: usize = 8;

/// A node with addresses to give.
#[derive(Debug)]
pub(crate) struct Plot {
    node: NodeName,
    bearer: String,
    claim: Claim,
    block: BlockVersion,
    addresses: Vec<Ipv4Addr>,
}

/// A connection, and the nodes that speak over it one after another. Requests and answers are plain text (RFC 9112), for the
/// less the load maker takes of the machine, the more is measured of the service.
#[derive(Debug)]
pub(crate) struct Grower {
    stream: TcpStream,
    host: String,
    plots: Vec<Plot>,
    seq: u64,
    answer: Vec<u8>,
}

/// Registers nodes of a pool by name and own address, each with a token, and takes their claims up.
pub(crate) async fn register(
    service: &Service,
    admin: &str,
    pool: &PoolName,
    nodes: impl Iterator<Item = (NodeName, IpAddr)>,
) -> Result<Vec<Plot>> {
    let admin = service.client(Some(admin))?;
    let plots = stream::iter(nodes).map(|(node, own)| plot(service, &admin, pool, node, own));
    plots.buffered(AT_ONCE).try_collect().await
}

/// Registers nodes of a pool one after another, or so many at once.
pub(crate) async fn claim(
    admin: &Client,
    pool: &PoolName,
    nodes: impl Iterator<Item = (NodeName, IpAddr)>,
    at_once: usize,
) -> Result<Figures> {
    let began = Instant::now();
    let claims = stream::iter(nodes).map(async |(node, own)| {
        let asked = Instant::now();
        admin.put_node(&node, &spec(pool, &node, own), &Write::default()).await?;
        anyhow::Ok(asked.elapsed())
    });
    let times: Vec<Duration> = claims.buffer_unordered(at_once).try_collect().await?;
    let mut figures = Figures::new()?;
    times.into_iter().for_each(|took| figures.done(took));
    figures.took = began.elapsed();
    Ok(figures)
}

fn spec(pool: &PoolName, node: &NodeName, own: IpAddr) -> NodeSpec {
    NodeSpec {
        pool: pool.clone(),
        addresses: vec![own],
        mac: None,
        uid: Some(format!("vm-of-{node}")),
        replace: false,
        allocator: Allocator::Node,
    }
}

async fn plot(
    service: &Service,
    admin: &Client,
    pool: &PoolName,
    node: NodeName,
    own: IpAddr,
) -> Result<Plot> {
    let registered = admin.put_node(&node, &spec(pool, &node, own), &Write::default()).await?.value;
    let token = TokenSpec {
        name: format!("shim of {node}"),
        role: Role::Node,
        node: Some(node.clone()),
        pool: None,
        uses: None,
        expires_in_seconds: None,
        node_token_seconds: None,
    };
    let token = admin
        .create_token(&token, &Write::default())
        .await?
        .value
        .secret
        .context("a token is shown when it is made")?;
    let stamp = stamp(registered.claim, Seq(1), registered.block.version);
    let sync = SyncRequest { as_of_seq: Seq(1), entries: Vec::new(), conflicts: Vec::new(), deletion: None };
    service.client(Some(&token))?.sync(&node, &stamp, &sync).await?;
    Ok(Plot {
        node,
        bearer: format!("Bearer {token}"),
        claim: registered.claim,
        block: registered.block.version,
        addresses: registered.block.ranges.iter().flat_map(addresses).collect(),
    })
}

fn addresses(range: &Range) -> Vec<Ipv4Addr> {
    match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from).collect()
        }
        _ => Vec::new(),
    }
}

fn stamp(claim: Claim, seq: Seq, block: BlockVersion) -> NodeStamp {
    NodeStamp {
        stamp: Stamp { claim, boot: BootSeq(1), seq },
        block,
        boot_id: Some("9b1c5e4e-6c1e-4a53-b9c1-0f5d1a8a7c11".to_owned()),
        machine: Some("benchmark".to_owned()),
    }
}

impl Grower {
    /// Connects clients that share these nodes out among themselves.
    pub(crate) async fn crew(address: SocketAddr, clients: usize, plots: Vec<Plot>) -> Result<Vec<Self>> {
        let mut crew = Vec::with_capacity(clients);
        for _ in 0..clients {
            crew.push(Self::connect(address).await?);
        }
        for (at, plot) in plots.into_iter().enumerate() {
            crew[at % clients].plots.push(plot);
        }
        Ok(crew)
    }

    async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_string(), plots: Vec::new(), seq: 1, answer: Vec::new() })
    }

    async fn run(&mut self, until: Instant) -> Result<Figures> {
        let mut figures = Figures::new()?;
        let began = Instant::now();
        let mut now = began;
        while now < until {
            let status = self.allocate().await?;
            let answered = Instant::now();
            match status {
                201 => figures.done(answered - now),
                other => figures.failed(other),
            }
            now = answered;
        }
        figures.took = now - began;
        Ok(figures)
    }

    async fn allocate(&mut self) -> Result<u16> {
        while self.plots.last().is_some_and(|plot| plot.addresses.is_empty()) {
            self.plots.pop();
        }
        let plot = self.plots.last_mut().context("more addresses than the nodes have")?;
        let address = plot.addresses.pop().context("no address")?;
        self.seq += 1;
        let stamp = stamp(plot.claim, Seq(self.seq), plot.block);
        let (node, container) = (&plot.node, u32::from(address));
        let pod = format!(
            r#"{{"address":"{address}","pod":{{"namespace":"default","name":"web-{container}","uid":"7f3c1d2e-{container}"}}}}"#
        );
        // What containerd calls a sandbox is 64 digits long.
        let request = format!(
            "PUT /v1/nodes/{node}/allocations/{container:064x}/eth0 HTTP/1.1\r\nhost: {host}\r\n\
             authorization: {bearer}\r\n{NODE_HEADER}: {stamp}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{pod}",
            host = self.host,
            bearer = plot.bearer,
            length = pod.len(),
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            let more = self.stream.read_buf(&mut self.answer).await?;
            ensure!(more > 0, "the service closed the connection");
            if let Some(status) = whole(&self.answer)? {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer that is all there.
fn whole(answer: &[u8]) -> Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = head.parse(answer)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(length) => std::str::from_utf8(length.value)?.parse()?,
        None => 0,
    };
    Ok(if answer.len() == body + length { head.code } else { None })
}

/// All of them at once for so long.
pub(crate) async fn allocate(crew: &mut [Grower], time: Duration) -> Result<Figures> {
    let until = Instant::now() + time;
    let each = try_join_all(crew.iter_mut().map(|grower| grower.run(until))).await?;
    ensure!(!each.is_empty(), "no clients");
    let mut all = Figures::new()?;
    for figures in &each {
        all.add(figures)?;
    }
    Ok(all)
}
