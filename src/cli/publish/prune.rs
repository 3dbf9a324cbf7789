//! What `keller publish --prune` and `--keep` did, for people.

use crate::base::Size;
use crate::repository::publish::{Count, Need, Pruned};

/// The lines; `is_plan` where nothing was done.
pub(super) fn text(pruned: &Pruned, is_plan: bool) -> String {
    let (unlists, removes) = if is_plan { ("would be", "would be deleted") } else { ("is", "deleted") };
    let mut text = String::new();
    for kept in &pruned.kept {
        let needs: Vec<String> = kept.needs.iter().map(need).collect();
        text.push_str(&format!("{} {:<16} stays: {}\n", kept.id, kept.version, needs.join(", ")));
    }
    for gone in &pruned.unlisted {
        text.push_str(&format!("{} {:<16} {unlists} no longer listed\n", gone.id, gone.version));
    }
    text.push_str(&format!("{removes}: {}\n", count(pruned.removed)));
    if let Some(until) = pruned.until {
        let until = until.strftime("%Y-%m-%d %H:%M UTC");
        text.push_str(&format!(
            "waiting: {}, the last until {until}: a node or an interrupted publication may still need them\n",
            count(pruned.waiting)
        ));
    }
    text.push_str(&format!("remaining, with those that wait: {}\n", count(pruned.left)));
    text
}

fn count(count: Count) -> String {
    let files = if count.files == 1 { "file" } else { "files" };
    format!("{} {files}, {}", count.files, Size(count.bytes).human())
}

fn need(need: &Need) -> String {
    match need {
        Need::Channel(channel) => format!("among the newest in {channel}"),
        Need::Step(channel) => format!("a step for old nodes in {channel}"),
        Need::Patch => "the next patches start from it".to_owned(),
        Need::Newest => "the newest".to_owned(),
        Need::Other => "of another image".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::publish::{Kept, Unlisted};

    #[test]
    fn what_is_told() {
        let (id, version) = ("node".to_owned(), "1.0.2".to_owned());
        let needs = vec![Need::Channel("stable".to_owned()), Need::Step("beta".to_owned()), Need::Patch];
        let kept = vec![Kept { id: id.clone(), version, needs }];
        let unlisted = vec![Unlisted { id, version: "1.0.0".to_owned(), channels: Vec::new() }];
        let pruned = Pruned {
            unlisted,
            kept,
            removed: Count { files: 1, bytes: 2048 },
            waiting: Count { files: 3, bytes: 4 << 20 },
            until: Some(jiff::Timestamp::UNIX_EPOCH),
            left: Count { files: 12, bytes: 8 << 20 },
        };
        assert_eq!(
            text(&pruned, false),
            "node 1.0.2            stays: among the newest in stable, a step for old nodes in beta, \
             the next patches start from it\n\
             node 1.0.0            is no longer listed\n\
             deleted: 1 file, 2.0 KiB\n\
             waiting: 3 files, 4.0 MiB, the last until 1970-01-01 00:00 UTC: a node or an interrupted publication may \
             still need them\n\
             remaining, with those that wait: 12 files, 8.0 MiB\n"
        );
        let plan = text(&Pruned { until: None, ..pruned }, true);
        assert!(
            plan.contains("node 1.0.0            would be no longer listed\nwould be deleted: 1 file"),
            "{plan}"
        );
        assert!(!plan.contains("waiting"), "{plan}");
    }
}
