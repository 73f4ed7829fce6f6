//! `ipamctl token`.

use crate::{
    arguments::{DryRun, duration, one_of},
    context::Context,
    failure::Failure,
    output::{
        Format, View, age, end, length, optional,
        table::{Column, column, wide},
        word,
    },
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::{Answer, all_pages},
    names::{NodeName, PoolName, TokenId},
    wire::{NewToken, Role, Token, TokenSpec},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

const ROLES: &[&str] = &["admin", "planner", "viewer", "node", "join"];

/// How long people's tokens count where nothing is said: 90 days.
const PEOPLE: u64 = 90 * 86_400;
/// How long join tokens do: a day.
const JOIN: u64 = 86_400;

const COLUMNS: &[Column<Token>] = &[
    column("ID", |token| token.id.to_string()),
    column("NAME", |token| token.name.clone()),
    column("ROLE", |token| word(&token.role)),
    column("STATE", |token| word(&token.state)),
    column("ENDS", |token| end(token.expires_at)),
    column("LAST USED", |token| optional(token.last_used_at.map(age).as_ref())),
    wide("NODE", |token| optional(token.node.as_ref())),
    wide("POOL", |token| optional(token.pool.as_ref())),
    wide("USES LEFT", |token| optional(token.uses_left.as_ref())),
    wide("NODE TOKENS LAST", |token| {
        optional(token.node_token_seconds.map(|seconds| length(seconds.cast_signed())).as_ref())
    }),
    wide("MADE BY", |token| token.created_by.clone()),
    wide("AGE", |token| age(token.created_at)),
];

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; this is the only time that it is shown
    #[command(after_help = "\
Roles: admin may do everything, planner read and plan, viewer read; node is one node's own, join
gives new nodes of a pool a token of their own (cni-shim join).

Examples:
  ipamctl token create alice --role planner --out alice.token
  ipamctl token create workers-join --role join --pool workers --uses 20 --expires 2h > join.token
  ipamctl token create node-1 --role node --node node-1 --pool workers --out node-1.token

Without --out the token alone goes to stdout, so that it can be redirected.")]
    Create(Create),
    /// List the tokens by what is known of them
    #[command(after_help = "Example:\n  ipamctl token list -o wide")]
    List,
    /// Show what is known of a token
    #[command(after_help = "Example:\n  ipamctl token show 0123456789abcdef")]
    Show {
        /// The token's id, as `ipamctl token list` shows it
        #[arg(value_name = "ID")]
        id: TokenId,
    },
    /// Revoke a token, or all of a node: they count no more
    #[command(after_help = "\
Examples:
  ipamctl token revoke 0123456789abcdef
  ipamctl token revoke --node node-1

A node whose tokens are revoked keeps its block and its pods; to its shim the service is as if away.")]
    Revoke(Revoke),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false, args = ["id", "node"])]
pub(crate) struct Revoke {
    /// The token's id, as `ipamctl token list` shows it
    #[arg(value_name = "ID")]
    id: Option<TokenId>,
    /// The node whose tokens end, whatever it makes of them meanwhile
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Who or what will use it: the actor in events
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may do
    #[arg(long, value_parser = one_of::<Role>(ROLES))]
    role: Role,
    /// The node whose it is; with role node
    #[arg(long, required_if_eq("role", "node"))]
    node: Option<NodeName>,
    /// The only pool its node may register in; with roles node and join
    #[arg(long, required_if_eq("role", "join"))]
    pool: Option<PoolName>,
    /// How many nodes may join with it; with role join, where 1 is the default
    #[arg(long, value_name = "NUMBER")]
    uses: Option<u64>,
    /// How long it counts, for example 24h or 90d, or never; by default 90d, for join 24h, and
    /// for node until it is revoked
    #[arg(long, value_name = "TIME")]
    expires: Option<Life>,
    /// How long the tokens count that nodes get by joining with it; by default until they are
    /// revoked
    #[arg(long, value_name = "TIME")]
    node_token_expires: Option<Life>,
    /// Write the token to this new file, for its owner alone, and show nothing secret
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// How long a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Seconds(u64),
    /// Until it is revoked.
    Endless,
}

impl Life {
    fn seconds(self) -> Option<u64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::Endless => None,
        }
    }

    fn of(role: Role) -> Self {
        match role {
            Role::Admin | Role::Planner | Role::Viewer => Self::Seconds(PEOPLE),
            Role::Join => Self::Seconds(JOIN),
            Role::Node => Self::Endless,
        }
    }
}

impl FromStr for Life {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Endless);
        }
        let wrong = |why: String| format!("{why}, or never");
        Ok(Self::Seconds(duration(text).map_err(wrong)?.as_secs().unsigned_abs()))
    }
}

impl TokenCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Create(args) => args.run(context).await,
            Self::List => {
                let client = context.client()?;
                let list = all_pages(async |page| client.tokens(&page).await).await?;
                context.show(&View::list(&[list], COLUMNS, "no token yet: ipamctl token create makes one")?)
            }
            Self::Show { id } => context.show(&View::fields(&context.client()?.token(&id).await?, COLUMNS)?),
            Self::Revoke(args) => args.run(context).await,
        }
    }
}

impl Revoke {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { id, node, dry_run } = self;
        let client = context.client()?;
        let revoked = dry_run.verb("revoked");
        if let Some(id) = id {
            let token = client.token(&id).await?.value;
            client.revoke_token(&id, &dry_run.write()).await?;
            context.say(format_args!("token {id} of {} {revoked}", token.name));
        }
        if let Some(node) = node {
            client.delete_credential(&node, &dry_run.write()).await?;
            context.say(format_args!("all tokens of node {node} {revoked}"));
        }
        Ok(())
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { name, role, node, pool, uses, expires, node_token_expires, out, dry_run } = self;
        let spec = TokenSpec {
            name,
            role,
            node,
            pool,
            uses: uses.or((role == Role::Join).then_some(1)),
            expires_in_seconds: expires.unwrap_or(Life::of(role)).seconds(),
            node_token_seconds: node_token_expires.and_then(Life::seconds),
        };
        let client = context.client()?;
        // Before the token is made: one that nobody has would count as well.
        let file = out.filter(|_| dry_run.keeps()).map(NewFile::create).transpose()?;
        let Answer { value: NewToken { token, secret }, body, etag, status } =
            client.create_token(&spec, &dry_run.write()).await?;
        let (id, known) = (token.id.clone(), Answer { value: token, body, etag, status });
        let about = format!("token {id} of {} {}", known.value.name, dry_run.verb("created"));
        match (secret, file) {
            (None, _) => {
                context.say(format_args!("{about}; it counts until {}", until(&known.value)));
                context.show(&View::row(&known, COLUMNS)?)
            }
            (Some(secret), Some(file)) => {
                let path = file.keep(&secret).map_err(|error| {
                    Failure::Other(format!(
                        "{about}, but cannot be written: {error}: revoke it (ipamctl token revoke {id})"
                    ))
                })?;
                context.say(format_args!(
                    "{about} and written to {}; it counts until {}",
                    path.display(),
                    until(&known.value)
                ));
                context.show(&View::row(&known, COLUMNS)?.without("secret"))
            }
            (Some(secret), None) => {
                context.say(format_args!(
                    "{about}; it counts until {}; it is not kept, so it is shown only here",
                    until(&known.value)
                ));
                match context.format() {
                    Format::Table | Format::Wide => context.print(&format!("{secret}\n")),
                    Format::Json | Format::Yaml => context.show(&View::row(&known, COLUMNS)?),
                }
            }
        }
    }
}

/// When a token ends, to the second.
fn until(token: &Token) -> String {
    token.expires_at.map_or_else(|| "it is revoked".to_owned(), |at| format!("{at:.0}"))
}

/// A file for its owner alone, made here; it goes again unless something is kept in it.
struct NewFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl NewFile {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok(Self { file, path, kept: false }),
            Err(error) => {
                let shown = path.display();
                Err(Failure::Other(match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        format!("{shown} is there already, and no token was made: name a new file with --out")
                    }
                    _ => format!("cannot write {shown}: {error}: name another file with --out"),
                }))
            }
        }
    }

    fn keep(mut self, secret: &str) -> io::Result<PathBuf> {
        writeln!(self.file, "{secret}")?;
        self.file.sync_all()?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        self.kept = true;
        Ok(self.path.clone())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing is in it, and whoever looks for it was told why.
            let _ = fs::remove_file(&self.path);
        }
    }
}
