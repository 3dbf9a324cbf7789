//! The first field of a file, which says in which form the rest is written.

use super::diagnostic::Report;
use super::yaml::{Node, Value};

/// What a kind of file begins with.
pub(crate) struct Header {
    /// Name of the field.
    pub field: &'static str,
    /// The form that this keller reads.
    pub form: u32,
    /// What messages call one: `document`.
    pub one: &'static str,
    /// What messages call several: `documents`.
    pub many: &'static str,
}

/// Whether `node` has the form that this keller reads. Of another form nothing else is checked: what would be said of it
/// would be guesses.
pub(crate) fn is_readable(node: &Node, header: &Header, report: &mut Report) -> bool {
    let Header { field, form, one, many } = header;
    let Some(entry) = node.get(field) else {
        if matches!(node.value, Value::Map(_)) {
            report
                .error(node.mark, format!("the {one} has no `{field}`"))
                .help(format!("begin with `{field}: {form}`"));
        }
        return true;
    };
    let Value::Scalar { text, .. } = &entry.value.value else { return true };
    match text.parse::<u32>() {
        Ok(found) if found != *form => {
            let message = format!("this keller reads {many} of form {form}, not {found}");
            report.error(entry.value.mark, message).help("another version of keller may read it");
            false
        }
        _ => true,
    }
}
