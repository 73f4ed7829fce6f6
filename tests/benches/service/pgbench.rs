use crate::database::Database;
use anyhow::{Context, Result, bail};
use std::{fs, time::Duration};
use tempfile::TempDir;
use testdb::Cluster;

/// What a transaction does at least to record who holds an address: a row of the ledger's columns, without any index.
const TABLE: &str = "CREATE TABLE pgbench_allocation (LIKE allocation)";

const SCRIPT: &str = r"\set at random(0, 2000000000)
INSERT INTO pgbench_allocation (subnet, at_offset, state, node_name, network, container_id, if_name, pod_namespace,
    pod_name, pod_uid, since, claim, boot_seq, seq, node, block, extent_first, extent_next)
VALUES (1, :at, 'held', 'load-' || :client_id, 'default',
    '000000000000000000000000000000000000000000000000000000000a800001', 'eth0', 'default',
    'web-176160769', '7f3c1d2e-176160769', 1790000000000, 1, 1, 2, 1, 1, 0, 1000);
";

/// `pgbench -M prepared` on a server.
#[derive(Debug)]
pub(crate) struct Pgbench {
    dir: TempDir,
}

impl Pgbench {
    /// Makes its table; the service's are there.
    pub(crate) async fn prepare(database: &Database) -> Result<Self> {
        let _ = database.connect().await.execute("DROP TABLE pgbench_allocation").await;
        database.connect().await.execute(TABLE).await?;
        let dir = TempDir::new()?;
        fs::write(dir.path().join("insert.sql"), SCRIPT)?;
        Ok(Self { dir })
    }

    /// Transactions a second of so many clients.
    pub(crate) async fn run(&self, cluster: &Cluster, clients: usize, time: Duration) -> Result<f64> {
        let mut command = tokio::process::Command::new(testdb::program("pgbench"));
        command
            .args(["-n", "-M", "prepared", "-U", "ipam", "-h"])
            .arg(cluster.directory())
            .args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
            .args(["-T", &time.as_secs().to_string(), "-f"])
            .arg(self.dir.path().join("insert.sql"))
            .arg("ipam");
        let output = command.output().await.context("starting pgbench")?;
        let told = String::from_utf8_lossy(&output.stdout);
        let rate = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        match rate {
            Some(rate) if output.status.success() => Ok(rate),
            _ => bail!("pgbench: {told}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}
