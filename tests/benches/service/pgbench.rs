use crate::database::Database;
use anyhow::{Context, Result, bail};
use std::{fs, time::Duration};
use tempfile::TempDir;
use testdb::Cluster;

/// What pgbench inserts a row a transaction into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    /// The ledger's columns and nothing else: what a transaction does at least to record who holds an address.
    Bare,
    /// With its keys, checks and indexes, too: what that takes if no mistake can give an address away twice or outside
    /// its block.
    Keyed,
}

const TABLES: [&str; 5] = [
    "CREATE TABLE pgbench_bare (LIKE allocation)",
    "CREATE TABLE pgbench_keyed (LIKE allocation INCLUDING ALL)",
    "DO $$ DECLARE key TEXT; BEGIN
        FOR key IN SELECT pg_get_constraintdef(oid) FROM pg_constraint
                   WHERE conrelid = 'allocation'::regclass AND contype = 'f' LOOP
            EXECUTE 'ALTER TABLE pgbench_keyed ADD ' || key;
        END LOOP;
    END $$",
    // Where the rows of a client may be: on the clients' nodes, which have a thousand addresses each.
    "CREATE TABLE pgbench_home AS
        SELECT row_number() OVER (ORDER BY e.first) AS i, e.subnet, b.node, b.id AS block, e.first, e.next
        FROM extent AS e JOIN block AS b ON b.id = e.block
        WHERE b.node IS NOT NULL AND e.next - e.first >= 1000",
    "ALTER TABLE pgbench_home ADD PRIMARY KEY (i)",
];

const BARE: &str = r"\set at random(0, 2000000000)
INSERT INTO pgbench_bare (subnet, at_offset, state, node_name, network, container_id, if_name, pod_namespace,
    pod_name, pod_uid, since, claim, boot_seq, seq, node, block, extent_first, extent_next)
VALUES (1, :at, 'held', 'load-' || :client_id, 'default',
    '000000000000000000000000000000000000000000000000000000000a800001', 'eth0', 'default',
    'web-176160769', '7f3c1d2e-176160769', 1790000000000, 1, 1, 2, 1, 1, 0, 1000);
";

const KEYED: &str = r"\set i :client_id + 1 + :n / 1000 * :clients
\set k :n % 1000
\set n :n + 1
INSERT INTO pgbench_keyed (subnet, at_offset, state, node_name, network, container_id, if_name, pod_namespace,
    pod_name, pod_uid, since, claim, boot_seq, seq, node, block, extent_first, extent_next)
SELECT home.subnet, home.first + :k, 'held', 'load-' || :client_id, 'default',
    '000000000000000000000000000000000000000000000000000000000' || :k, 'eth0', 'default',
    'web-' || :n, '7f3c1d2e-' || :n, 1790000000000, 1, 1, 2, home.node, home.block, home.first, home.next
FROM pgbench_home AS home WHERE home.i = :i;
";

impl Table {
    fn script(self) -> &'static str {
        match self {
            Self::Bare => "bare.sql",
            Self::Keyed => "keyed.sql",
        }
    }
}

/// `pgbench -M prepared` on a server.
#[derive(Debug)]
pub(crate) struct Pgbench {
    dir: TempDir,
}

impl Pgbench {
    /// Makes its tables; the service's, and the clients' nodes, are there.
    pub(crate) async fn prepare(database: &Database) -> Result<Self> {
        for sql in TABLES {
            database.connect().await.execute(sql).await?;
        }
        let dir = TempDir::new()?;
        fs::write(dir.path().join(Table::Bare.script()), BARE)?;
        fs::write(dir.path().join(Table::Keyed.script()), KEYED)?;
        Ok(Self { dir })
    }

    /// Transactions a second of so many clients.
    pub(crate) async fn run(
        &self,
        database: &Database,
        cluster: &Cluster,
        table: Table,
        clients: usize,
        time: Duration,
    ) -> Result<f64> {
        database.connect().await.execute("TRUNCATE pgbench_bare, pgbench_keyed").await?;
        let mut command = tokio::process::Command::new(testdb::program("pgbench"));
        command
            .args(["-n", "-M", "prepared", "-U", "ipam", "-h"])
            .arg(cluster.directory())
            .args(["-D", "n=0", "-D", &format!("clients={clients}")])
            .args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
            .args(["-T", &time.as_secs().to_string(), "-f"])
            .arg(self.dir.path().join(table.script()))
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
