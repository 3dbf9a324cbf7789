//! How a guest that answers is reached.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::cli::Global;
use crate::cli::streams::{self, OutputError};
use crate::qemu::Ways;

/// Says that `what` is ready, and how it is reached.
///
/// # Errors
/// Those of standard output.
pub(super) fn report(
    ways: &Ways,
    what: &str,
    identity: &Path,
    begun: Instant,
    global: &Global,
) -> Result<(), OutputError> {
    let seconds = begun.elapsed().as_secs_f64();
    let ssh = ways.ssh().map(|forward| {
        format!(
            "ssh -i {} -p {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null core@127.0.0.1",
            identity.display(),
            forward.host
        )
    });
    let urls: Vec<_> = ways.pages().map(|forward| format!("http://127.0.0.1:{}/", forward.host)).collect();
    if global.json {
        let others: Vec<_> = ways.others().iter().map(|forward| [forward.host, forward.guest]).collect();
        return streams::json(
            json!({ "ready": true, "seconds": seconds, "urls": urls, "ssh": ssh, "forwards": others }),
        );
    }
    // The guest may have left the cursor anywhere.
    let mut text = format!("\n{what} is ready after {seconds:.0} s");
    for url in urls {
        text.push_str(&format!("\n  {url}"));
    }
    for forward in ways.others() {
        text.push_str(&format!("\n  127.0.0.1:{} leads to port {}", forward.host, forward.guest));
    }
    if let Some(ssh) = ssh {
        text.push_str(&format!("\n  {ssh}"));
    }
    streams::tell(text);
    Ok(())
}
