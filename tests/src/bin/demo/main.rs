//! `make demo`: a VNet in a box, told as a story.
//!
//! Everything happens in namespaces that this process holds; they end with it,
//! however it ends.

mod chapters;
mod outside;
mod story;

use anyhow::Result;
use outside::Outside;
use std::{process::ExitCode, time::Duration};
use story::Story;
use vnet_tests::lab::{Families, Lab};

/// Nodes of the demo.
const NODES: u64 = 3;
/// The demo may take this long.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut story = Story::begin();
    let whole = tell_and_leave_nothing(&mut story);
    if let Err(error) = &whole {
        story.interrupted(error);
    }
    if story.summary() && whole.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells the story and, however that ended, looks whether anything of it is left.
fn tell_and_leave_nothing(story: &mut Story) -> Result<()> {
    let before = Outside::look()?;
    let told = tell(story);
    if let Err(error) = &told {
        story.interrupted(error);
    }
    // The lab is gone by now.
    let after = Outside::look()?;
    let figure = match &told {
        Ok(()) => format!("{} chapters", story.chapters()),
        Err(error) => format!("{error:#}"),
    };
    story.claim("the story is told to its end", &figure, told.is_ok())?;
    let left = after.ours_since(&before);
    let figure =
        if left.is_empty() { "links, mounts, nft tables, forwarding".to_owned() } else { left.join("; ") };
    story.claim("the machine itself is as it was before", &figure, left.is_empty())?;
    let others = after.others_since(&before);
    if !others.is_empty() {
        story.say(&format!("\nMeanwhile others changed on this machine: {}.", others.join("; ")))?;
    }
    let took = story.took();
    story.claim("it takes under 60 s after the build", &format!("{:.1} s", took.as_secs_f64()), took < LIMIT)
}

fn tell(story: &mut Story) -> Result<()> {
    story.chapter("A VNet in a box")?;
    story.say(
        "Five machines in namespaces of their own, on one bridge: a management VM, three nodes, a plain VM.",
    )?;
    let mut lab = Lab::boot(Families::Dual, NODES)?;
    chapters::machines(story, &lab)?;
    chapters::plan(story, &lab)?;
    chapters::register(story, &lab)?;
    chapters::credentials(story, &lab)?;
    let mut pods = chapters::start_pods(story, &lab)?;
    chapters::reach_each_other(story, &lab, &pods)?;
    chapters::who_has_which(story, &lab, &pods)?;
    chapters::service_away(story, &mut lab, &mut pods)?;
    chapters::service_back(story, &mut lab, &pods)?;
    chapters::scale(story, &lab)?;
    chapters::delete_pods(story, &lab, pods)?;
    chapters::free_again(story, &lab)
}
