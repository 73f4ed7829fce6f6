//! Edits on condition: each was made once or not at all, and what was acknowledged is there until another edit.

use super::{Rule, Violation};
use crate::history::{Ask, Call, Edit, History, Said, Tick};
use ipam_api::wire::ProblemType;
use std::collections::{BTreeMap, BTreeSet};

/// What was asked and seen of one thing.
#[derive(Debug, Default)]
struct Story<'a> {
    edits: Vec<(&'a Call, &'a Edit)>,
    reads: Vec<&'a Call>,
}

/// An edit that is known to have been made.
#[derive(Debug, Clone, Copy)]
struct Made<'a> {
    edit: &'a Edit,
    by: Tick,
    /// The version that it made; `None`: it took the thing away.
    version: Option<&'a str>,
    value: &'a str,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut stories: BTreeMap<&str, Story<'_>> = BTreeMap::new();
    for call in &history.calls {
        match &call.ask {
            Ask::Edit(edit) => stories.entry(&edit.what).or_default().edits.push((call, edit)),
            Ask::Read(what) => stories.entry(what).or_default().reads.push(call),
            _ => {}
        }
    }
    stories.iter().flat_map(|(what, story)| of_one(what, story)).collect()
}

fn of_one(what: &str, story: &Story<'_>) -> Vec<Violation> {
    let wrong = |rule, told: String| Violation::new(rule, format!("{what}: {told}"), [format!("\"{what}\"")]);
    let made: Vec<Made<'_>> = story.edits.iter().filter_map(|(call, edit)| made(call, edit)).collect();
    let mut violations = Vec::new();

    let (mut used, mut versions) = (BTreeSet::new(), BTreeSet::new());
    for one in &made {
        if let Some(expected) = &one.edit.expects
            && !used.insert(expected)
        {
            let told = format!("two edits on condition of {expected} were made");
            violations.push(wrong(Rule::RetriesChangeNothing, told));
        }
        if let Some(version) = one.version
            && !versions.insert(version)
        {
            let told = format!("version {version} was made twice: who has it cannot tell which");
            violations.push(wrong(Rule::RetriesChangeNothing, told));
        }
        if one.version.is_some() && one.edit.becomes.as_deref() != Some(one.value) {
            let told = format!("{:?} was asked for and {} made", one.edit.becomes, one.value);
            violations.push(wrong(Rule::NothingLost, told));
        }
    }
    for call in &story.reads {
        if let Some((rule, told)) = misread(call, story, &made) {
            violations.push(wrong(rule, told));
        }
    }
    violations
}

fn made<'a>(call: &'a Call, edit: &'a Edit) -> Option<Made<'a>> {
    match &call.said {
        // One that found the thing as it was to be has made nothing.
        Said::Done { version, .. } if version.is_some() && *version == edit.expects => None,
        Said::Done { version, value } => {
            Some(Made { edit, by: call.answered, version: version.as_deref(), value })
        }
        Said::Refused(..) | Said::Nothing(_) | Said::Defect(_) => None,
    }
}

/// Whether an edit may have made what nobody was told of. One that was refused may, by a copy of it: before, so that its
/// condition does not hold any more, or after, when what was in its way is not any more. A copy of one that made a thing may
/// make it again once it was deleted: that it is not there is all that it asks.
fn may_have_made(call: &Call, edit: &Edit) -> bool {
    edit.expects.is_none() || !matches!(call.said, Said::Done { .. })
}

/// What is wrong with what was read.
fn misread(call: &Call, story: &Story<'_>, made: &[Made<'_>]) -> Option<(Rule, String)> {
    let (version, value) = match &call.said {
        Said::Done { version, value } => (version.as_deref(), Some(value.as_str())),
        Said::Refused(ProblemType::NotFound, _) => (None, None),
        Said::Refused(..) | Said::Nothing(_) | Said::Defect(_) => return None,
    };
    // What was made before this was asked and that nobody has meant to change since.
    let stands = made.iter().find(|one| {
        let touched = |(other, edit): &(&Call, &Edit)| {
            edit.expects.as_deref() == one.version && other.asked < call.answered
        };
        one.version.is_some() && one.by < call.asked && !story.edits.iter().any(touched)
    });
    if let Some(stands) = stands.filter(|stands| stands.version != version) {
        let told =
            format!("version {:?} was acknowledged, and {} read {version:?}", stands.version, call.asked);
        return Some((Rule::NothingLost, told));
    }
    let (version, value) = (version?, value?);
    if made.iter().any(|one| one.edit.expects.as_deref() == Some(version) && one.by < call.asked) {
        let told = format!("version {version} was changed, and {} read it after that", call.asked);
        return Some((Rule::NothingLost, told));
    }
    match made.iter().find(|one| one.version == Some(version)) {
        Some(one) if one.value == value => None,
        Some(one) => {
            let told = format!("version {version} was made as {}, and read as {value}", one.value);
            Some((Rule::NothingLost, told))
        }
        None => {
            let unknown = |(other, edit): &(&Call, &Edit)| {
                may_have_made(other, edit) && edit.becomes.as_deref() == Some(value)
            };
            if story.edits.iter().any(unknown) {
                return None;
            }
            let told = format!("nobody made version {version}: {value}");
            Some((Rule::RetriesChangeNothing, told))
        }
    }
}
