//! `ipamctl fsck` and `ipamctl recovery`: whether the ledger is sound, and what a restored backup leaves to do.

use crate::{
    arguments::DryRun,
    context::Context,
    failure::Failure,
    output::{
        View, count,
        document::Document,
        table::{Column, Table, column, wide},
        word,
    },
};
use clap::{Args, Subcommand};
use ipam_api::wire::{Consistency, Finding, Severity};

const COLUMNS: &[Column<Finding>] = &[
    column("SEVERITY", |finding| word(&finding.severity)),
    column("CODE", |finding| finding.code.clone()),
    column("OBJECT", |finding| finding.object.clone()),
    column("WHAT", |finding| finding.detail.clone()),
    wide("REPAIR", |finding| if finding.repairable { "fsck --repair" } else { "by hand" }.to_owned()),
    wide("CURE", |finding| finding.cure.clone()),
];

#[derive(Debug, Args)]
#[command(after_help = "\
A repair gives no address away, lets none go and frees no block: it joins free neighbours, raises
counters that are behind, and forgets strangers noted where their node has no address and tokens
long expired. For everything else the cure says who has to do what (-o wide).

Exit status: 0 no rule is broken, 1 one is.

Examples:
  ipamctl fsck -o wide
  ipamctl fsck --repair --dry-run")]
pub(crate) struct FsckArgs {
    /// Put right what can be without risk that an address gets two holders
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl FsckArgs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let Self { repair, dry_run: asked } = self;
        if !repair && !asked.keeps() {
            return Err(Failure::Usage(
                "without --repair nothing is changed: leave --dry-run out".to_owned(),
            ));
        }
        let answer = if repair {
            let answer = client.repair(&asked.write()).await?;
            let repaired = &answer.value.repaired;
            for finding in repaired {
                context.say(format_args!("{} {} {}", finding.code, finding.object, asked.verb("repaired")));
            }
            if repaired.is_empty() {
                context.say(format_args!("nothing to repair"));
            }
            answer
        } else {
            client.consistency().await?
        };
        let Consistency { recovery, findings, .. } = &answer.value;
        if let Some(recovery) = recovery {
            context.say(format_args!(
                "in recovery since {:.0}: {} not heard of since; ipamctl recovery end when nothing made after the backup \
                 has an address any more",
                recovery.since,
                count(recovery.unheard_nodes, "node", "nodes")
            ));
        }
        let table = Table::rows(COLUMNS, findings).or_note("nothing is wrong");
        context.show(&View::new(Document::parse(&answer.body)?, vec![table]))?;
        let broken = findings.iter().filter(|finding| finding.severity == Severity::Broken).count();
        if broken == 0 {
            return Ok(());
        }
        let rules = count(broken as u64, "rule is broken", "rules are broken");
        Err(Failure::Other(format!("{rules}: ipamctl fsck -o wide says what to do")))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecoveryCommand {
    /// End the recovery that a restored backup began: nodes and pods get addresses again
    #[command(after_help = "\
While it goes on, nobody new gets an address, because VMs and pods made after the backup may have
some that the service knows nothing of. Before it is ended: run cni-shim sync on every node, end
the VMs that ipamctl node list does not show, and delete with --vm-gone the nodes whose VMs are
gone.

Examples:
  ipamctl fsck
  ipamctl recovery end")]
    End(End),
}

#[derive(Debug, Args)]
pub(crate) struct End {
    #[command(flatten)]
    dry_run: DryRun,
}

impl RecoveryCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::End(End { dry_run }) = self;
        context.client()?.end_recovery(&dry_run.write()).await?;
        context.say(format_args!("recovery {}", dry_run.verb("ended")));
        Ok(())
    }
}
