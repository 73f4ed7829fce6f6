//! A PostgreSQL cluster in a temporary directory, reached by a socket there.

use crate::Raw;
use nix::unistd::{User, chown, geteuid};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// PostgreSQL refuses to run as root: then it runs as the user that Debian's package makes.
const SERVER_USER: &str = "postgres";

/// Owns the databases of tests; no superuser, as the service's user is none.
const OWNER: &str = "ipam";

const TEMPLATE: &str = "template_ipam";

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the server until it hears a signal's name (then that ends the server, which runs again with the next line) or
/// standard input ends, which it does with the process that holds the other end, however that one ends: then nothing is
/// left.
/// `$1` is the directory, the rest is the server's command.
const KEEPER: &str = r#"
dir=$1
shift
while "$@" >>"$dir/log" 2>&1 & read -r signal
do
    kill -"$signal" $!
    wait
    echo stopped
    read -r _ || break
done
kill -QUIT $! 2>/dev/null
wait
rm -rf -- "$dir"
"#;

/// Whether what was acknowledged has to be there after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It need not: what is tested is not this.
    Unneeded,
    /// Every commit is flushed to disk.
    Fsync,
}

/// A running cluster; it stops and goes with its value, or with this process.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    keeper: Child,
    /// As long as it is open the cluster is there.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    databases: AtomicU32,
    /// Databases whose tests have ended.
    ended: Mutex<Vec<String>>,
}

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

impl Cluster {
    /// The one of this process, with a template that `migrate` made.
    pub(crate) async fn shared(migrate: impl AsyncFnOnce(String)) -> &'static Self {
        SHARED
            .get_or_init(async || {
                let cluster = Self::start(Durability::Unneeded, &[]).await;
                cluster.create(TEMPLATE, "template0").await;
                migrate(cluster.url(TEMPLATE)).await;
                cluster
            })
            .await
    }

    /// Starts a cluster of its own with more settings (`name=value`).
    pub async fn start(durability: Durability, settings: &[&str]) -> Self {
        Self::start_below(&std::env::temp_dir(), durability, settings).await
    }

    /// The same in a new directory below this one, which the server's user has to reach.
    pub async fn start_below(below: &Path, durability: Durability, settings: &[&str]) -> Self {
        let dir = new_directory(below);
        made(
            as_server_user(&program("initdb"))
                .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
                .args(["--username=postgres", "--pgdata"])
                .arg(dir.join("data")),
        );
        let mut all = Vec::new();
        if durability == Durability::Unneeded {
            all.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"]);
        }
        // The last word counts.
        all.extend(settings);
        let cluster = Self::launch(dir, &all).await;
        let mut admin = cluster.admin().await;
        admin.execute(AssertSqlSafe(format!("CREATE ROLE {OWNER} LOGIN"))).await.unwrap();
        cluster
    }

    /// A copy of this running cluster that follows it from now on, and only reads until it is promoted. Settings that
    /// concern replication have to be the primary's at least.
    pub async fn standby(&self, settings: &[&str]) -> Self {
        let dir = new_directory(&std::env::temp_dir());
        made(
            as_server_user(&program("pg_basebackup"))
                .args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--username=postgres"])
                .arg("--host")
                .arg(&self.dir)
                .arg("--pgdata")
                .arg(dir.join("data")),
        );
        Self::launch(dir, settings).await
    }

    /// Runs the server whose data are in a directory, until it takes connections.
    async fn launch(dir: PathBuf, settings: &[&str]) -> Self {
        let sockets = format!("unix_socket_directories={}", dir.display());
        let mut keeper = as_server_user(Path::new("/bin/sh"));
        keeper.args(["-c", KEEPER, "keeper"]).arg(&dir).arg(program("postgres")).arg("-D");
        keeper.arg(dir.join("data")).args(["-c", "listen_addresses=", "-c", &sockets]);
        for setting in settings {
            keeper.args(["-c", setting]);
        }
        // A group of its own: Ctrl-C at the terminal is for the tests, and their end ends it.
        let mut keeper =
            keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let (orders, answers) = (keeper.stdin.take(), BufReader::new(keeper.stdout.take().unwrap()));
        let (databases, ended) = (AtomicU32::new(0), Mutex::default());
        let cluster = Self { dir, keeper, orders, answers, databases, ended };
        drop(cluster.admin().await);
        cluster
    }

    fn order(&mut self, word: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{word}").unwrap();
    }

    fn end(&mut self, signal: &str) {
        self.order(signal);
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "stopped\n");
    }

    /// The server crashes, and nobody is at its socket.
    pub fn stop(&mut self) {
        self.end("QUIT");
    }

    /// The server's first process is killed without a word; the others find that out by themselves.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Runs a stopped server again, until it takes connections.
    pub async fn run(&mut self) {
        self.order("go");
        drop(self.admin().await);
    }

    /// A new database of the service's user, as a copy of another.
    pub async fn create(&self, name: &str, template: &str) {
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER} ENCODING 'UTF8'");
        self.admin().await.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// A database, as the service is told of it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user={OWNER}", self.dir.display())
    }

    /// A connection of the service's user.
    pub async fn connect(&self, database: &str) -> Raw {
        Raw::postgres(&self.url(database)).await
    }

    /// Where it keeps everything.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// A superuser's connection, as soon as the server takes one.
    pub async fn admin(&self) -> PgConnection {
        let url = format!("postgres:///postgres?host={}&user=postgres", self.dir.display());
        let began = Instant::now();
        loop {
            match PgConnection::connect(&url).await {
                Ok(connection) => return connection,
                Err(error) => assert!(began.elapsed() < DEADLINE, "{error}\n{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) async fn lease(&'static self) -> Lease {
        let mut admin = self.admin().await;
        let ended = std::mem::take(&mut *self.ended.lock().unwrap());
        for name in ended {
            admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
        }
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.create(&name, TEMPLATE).await;
        Lease { cluster: self, name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends by itself now.
        let _ = self.keeper.wait();
    }
}

/// A database of the shared cluster.
#[derive(Debug)]
pub(crate) struct Lease {
    cluster: &'static Cluster,
    name: String,
}

impl Lease {
    pub(crate) fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Ok(mut ended) = self.cluster.ended.lock() {
            ended.push(std::mem::take(&mut self.name));
        }
    }
}

/// Where a cluster keeps everything, below a directory; its user's.
fn new_directory(below: &Path) -> PathBuf {
    let dir = tempfile::Builder::new().prefix("ipam-pg-").tempdir_in(below).unwrap().keep();
    if geteuid().is_root() {
        let user = User::from_name(SERVER_USER).unwrap().unwrap_or_else(|| {
            panic!("there is no user {SERVER_USER}: install Debian's postgresql-15 (make setup)")
        });
        chown(&dir, Some(user.uid), Some(user.gid)).unwrap();
    }
    dir
}

/// Runs what makes a cluster's data.
fn made(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program that runs as the user that may run a server.
fn as_server_user(program: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", SERVER_USER, "--regid", SERVER_USER, "--init-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // Where the tests run may be nothing for that user.
    command.current_dir("/");
    command
}

/// A program of the newest PostgreSQL that is installed where Debian has it.
///
/// # Panics
/// None is.
pub fn program(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    versions.sort();
    let Some((_, path)) = versions.pop() else {
        panic!("there is no PostgreSQL: install Debian's postgresql-15 (make setup)");
    };
    path
}
