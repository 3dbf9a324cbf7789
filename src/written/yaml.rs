//! YAML text → a tree in which every value knows its place.
//!
//! The tree does not guess types: whether `1.10` is a number or a version is for the schema to say, so
//! nothing is lost to YAML's own guesses. Reading goes on after a double key, a tag or a bad key, so that all
//! of them are told at once; only a syntax error ends it.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::diagnostic::Report;
use super::place::{Mark, Sum};
use crate::base::width::to_index;

/// Nested deeper than this is no manifest; it also bounds the recursion here and in all later passes.
const DEEPEST: usize = 24;

/// Values after aliases are expanded. The largest manifest that ships has a few hundred.
const MOST_VALUES: usize = 20_000;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it begins.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
    /// What other files say instead; see `merge`.
    pub rivals: Vec<Node>,
}

/// What a value is, as far as YAML alone tells.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// Text; `plain` when written without quotes.
    Scalar {
        /// After escapes and folding.
        text: String,
        /// Neither quoted nor a block.
        plain: bool,
    },
    /// `- …` or `[…]`.
    List(Vec<Node>),
    /// `key: …` or `{…}`, in the order of the file, each key once.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub mark: Mark,
    /// Its value.
    pub value: Node,
}

impl Node {
    pub(crate) fn new(mark: Mark, value: Value) -> Self {
        Self { mark, value, rivals: Vec::new() }
    }

    /// The value under `key`, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// As [`Self::get`], to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.value {
            Value::Map(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
            }
            _ => None,
        }
    }

    /// Says the same, wherever it stands.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Scalar { text: a, .. }, Value::Scalar { text: b, .. }) => a == b,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.iter().all(|entry| other.get(&entry.key).is_some_and(|b| entry.value.same(&b.value)))
            }
            _ => false,
        }
    }

    /// Values in it, itself included, and their bytes, those of keys included.
    fn size(&self) -> (usize, usize) {
        let add = |(values, bytes), (more, size)| (values + more, bytes + size);
        match &self.value {
            Value::Null => (1, 0),
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Self::size).fold((1, 0), add),
            Value::Map(entries) => {
                entries.iter().map(|entry| add((0, entry.key.len()), entry.value.size())).fold((1, 0), add)
            }
        }
    }
}

/// Why reading ended early; it has been reported.
struct Stopped;

/// Reads one file. `None` when it is no YAML at all; then the reason is in `report`.
/// `sum` is that of all files of the manifest.
pub(crate) fn read(source: u32, text: &str, sum: &mut Sum, report: &mut Report) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { source, text, parser, report, sum, anchors: HashMap::new(), values: 0 };
    reader.document().ok()
}

/// One of the documents of a file.
pub(crate) struct Document {
    /// What it says.
    pub(crate) node: Node,
    /// Its lines: the first, from 1, and the one after the last.
    pub(crate) lines: std::ops::Range<u32>,
}

/// Reads all documents of a file, as [`read`] reads the only one. Those without a value are left out.
pub(crate) fn read_all(source: u32, text: &str, sum: &mut Sum, report: &mut Report) -> Option<Vec<Document>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { source, text, parser, report, sum, anchors: HashMap::new(), values: 0 };
    reader.documents().ok()
}

struct Reader<'a> {
    source: u32,
    text: &'a str,
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    report: &'a mut Report,
    sum: &'a mut Sum,
    /// Anchored values by the parser's number; one that is still open is absent.
    anchors: HashMap<usize, Node>,
    values: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Stopped> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_none() => {}
                Event::DocumentStart(..) => {
                    let mark = self.mark(span);
                    self.report
                        .error(mark, "a second YAML document begins here")
                        .help("a manifest is one document: remove the `---`");
                    return Err(Stopped);
                }
                event => root = Some(self.value(event, span, 0)?),
            }
        }
        match root {
            None => Ok(Node::new(Mark::top(self.source), Value::Map(Vec::new()))),
            Some(node) if matches!(node.value, Value::Null) => {
                Ok(Node::new(node.mark, Value::Map(Vec::new())))
            }
            Some(node) => Ok(node),
        }
    }

    fn documents(&mut self) -> Result<Vec<Document>, Stopped> {
        let mut found: Vec<Document> = Vec::new();
        let mut begins = 1;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    let lines = narrow(self.text.split('\n').count() + 1);
                    found.last_mut().into_iter().for_each(|last| last.lines.end = lines);
                    found.retain(|document| !matches!(document.node.value, Value::Null));
                    return Ok(found);
                }
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) => {
                    begins = if found.is_empty() { 1 } else { self.mark(span).line };
                    found.last_mut().into_iter().for_each(|last| last.lines.end = begins);
                    self.anchors.clear();
                }
                event => {
                    let node = self.value(event, span, 0)?;
                    found.push(Document { node, lines: begins..begins });
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stopped> {
        loop {
            match self.parser.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => return Err(self.syntax(&error)),
                None => return Err(Stopped),
            }
        }
    }

    fn syntax(&mut self, error: &ScanError) -> Stopped {
        let at = error.marker();
        let mark = Mark {
            source: self.source,
            line: narrow(at.line().max(1)),
            column: narrow(at.col() + 1),
            length: 1,
        };
        // The parser may notice a tab only after the value that stands before it.
        let tab = self.text.split('\n').enumerate().skip(to_index(mark.line) - 1).take(2).find_map(
            |(line, text)| {
                let indent = text.len() - text.trim_start().len();
                text[..indent].find('\t').map(|column| (narrow(line + 1), narrow(column + 1)))
            },
        );
        match tab {
            Some((line, column)) => self
                .report
                .error(Mark { line, column, ..mark }, "this line is indented with a tab")
                .help("indent with spaces; YAML has no tabs"),
            None => self.report.error(mark, format!("this is not YAML: {}", error.info())),
        };
        Stopped
    }

    fn mark(&self, span: Span) -> Mark {
        let (start, end) = (span.start, span.end);
        let length = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
        Mark {
            source: self.source,
            line: narrow(start.line().max(1)),
            column: narrow(start.col() + 1),
            length: narrow(length.max(1)),
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Stopped> {
        let mark = self.mark(span);
        self.values += 1;
        if depth > DEEPEST {
            self.report.error(mark, format!("nested deeper than {DEEPEST} levels"));
            return Err(Stopped);
        }
        let (value, anchor, tagged) = match event {
            Event::Alias(id) => return self.alias(id, mark),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar { text: text.into_owned(), plain } };
                (value, anchor, tag.is_some())
            }
            Event::SequenceStart(_, anchor, tag) => (self.list(depth)?, anchor, tag.is_some()),
            Event::MappingStart(_, anchor, tag) => (self.map(depth)?, anchor, tag.is_some()),
            other => {
                self.report.error(mark, format!("this is not YAML: unexpected {other:?}"));
                return Err(Stopped);
            }
        };
        if tagged {
            let at = span.tag_span().map_or(mark, |span| self.mark(span));
            self.report.error(at, "tags have no meaning here").help("remove the word that begins with `!`");
        }
        let node = Node::new(mark, value);
        let text = if let Value::Scalar { text, .. } = &node.value { text.len() } else { 0 };
        self.count(mark, 1, text)?;
        if anchor != 0 {
            let (values, bytes) = node.size();
            self.count(mark, values, bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, mark: Mark) -> Result<Node, Stopped> {
        let Some(node) = self.anchors.get(&id) else {
            self.report.error(mark, "this alias stands inside the value that it repeats");
            return Err(Stopped);
        };
        let (values, bytes) = node.size();
        self.values += values;
        if self.values > MOST_VALUES {
            self.report
                .error(mark, format!("aliases expand this file to more than {MOST_VALUES} values"))
                .help("write the values out, or share them with `include:`");
            return Err(Stopped);
        }
        let node = node.clone();
        self.count(mark, values, bytes)?;
        Ok(node)
    }

    /// Counts values that come to be in memory.
    fn count(&mut self, mark: Mark, values: usize, bytes: usize) -> Result<(), Stopped> {
        self.sum.add(values, bytes).map_err(|most| {
            self.report.error(mark, most).help("name fewer things, or put them into files of an overlay");
            Stopped
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stopped> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.value(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stopped> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let key = self.value(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.value(event, span, depth + 1)?;
            match key.value {
                Value::Scalar { text, plain: true } if text == "<<" => {
                    self.report
                        .error(key.mark, "merge keys are not known here")
                        .help("share values with `include:`");
                }
                Value::Scalar { text, .. } => match places.get(&text) {
                    Some(first) => {
                        let first = &entries[*first];
                        self.report
                            .error(key.mark, format!("`{text}` stands here a second time"))
                            .help("write it once; lists and maps can hold both values")
                            .related(first.mark, "the first is here");
                    }
                    None => {
                        places.insert(text.clone(), entries.len());
                        entries.push(Entry { key: text, mark: key.mark, value });
                    }
                },
                Value::Null => {
                    self.report.error(key.mark, "this key has no name");
                }
                Value::List(_) | Value::Map(_) => {
                    self.report
                        .error(key.mark, "a key must be a word")
                        .help("text that begins with `{` or `[` needs quotes");
                }
            }
        }
    }
}

/// A line or a column; a manifest has fewer than 2^32 of both.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The text of a file; none when it is not UTF-8, which is reported with the place of the first bad byte.
pub(crate) fn decode<'b>(source: u32, bytes: &'b [u8], report: &mut Report) -> Option<&'b str> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return whole_lines(source, text, report).then_some(text),
        Err(error) => error,
    };
    let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let line = narrow(good.matches('\n').count() + 1);
    let column = narrow(good.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let byte = bytes[error.valid_up_to()];
    report
        .error(Mark { source, line, column, length: 1 }, format!("byte 0x{byte:02x} is not UTF-8"))
        .help("save the file as UTF-8");
    None
}

/// Refuses a carriage return that no line feed follows: the parser ends a line there, and an editor does not, so that what
/// stands behind it is not what people see, and lines have other numbers.
fn whole_lines(source: u32, text: &str, report: &mut Report) -> bool {
    let bytes = text.as_bytes();
    let alone = |at: &usize| bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    let Some(at) = (0..bytes.len()).find(alone) else { return true };
    let before = &text[..at];
    let line = narrow(before.matches('\n').count() + 1);
    let column = narrow(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    report
        .error(Mark { source, line, column, length: 1 }, "a carriage return stands here without a line feed")
        .help("end each line with a line feed");
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits;

    /// The last mistake of a text.
    fn told(text: &str) -> String {
        let (mut sum, mut report) = (Sum::default(), Report::default());
        let mut sources = crate::written::place::Sources::default();
        sources.add(crate::written::place::Source { name: "x".into(), text: text.to_owned() });
        read(0, text, &mut sum, &mut report);
        report.finish(&sources).list.pop().map(|last| last.message).unwrap_or_default()
    }

    #[test]
    fn values_have_a_sum() {
        let large = "x".repeat(100_000);
        let aliases = |count: usize| format!("a:\n- &a {large}\n{}", "- *a\n".repeat(count));
        assert_eq!(told(&aliases(150)), "");
        let said = "all files of this manifest have more than 16.0 MiB of text in their values together";
        assert_eq!(told(&aliases(170)), said);
        // An anchor keeps a copy, and so does each around it.
        let anchors = |count: usize| {
            let open: String = (0..count).map(|number| format!("&a{number} [")).collect();
            format!("a: {open}{}{}", format!("{large},").repeat(10), "]".repeat(count))
        };
        assert_eq!((told(&anchors(15)).as_str(), told(&anchors(20)).as_str()), ("", said));
        let most = format!("all files of this manifest have more than {} values together", limits::VALUES);
        assert_eq!(told(&format!("a: [{}]", "a,".repeat(limits::VALUES))), most);
        let keys: String = (0..limits::VALUES).map(|number| format!("k{number}: a\n")).collect();
        assert_eq!(told(&keys), most);
    }

    /// Each mistake is told with its line, and here this line is the whole file.
    #[test]
    fn mistakes_have_a_number() {
        let said = format!("there are more mistakes than the {} that are told", limits::MISTAKES);
        assert_eq!(told(&format!("a: {{{}}}", "a: b,".repeat(20_000))), said);
        assert_eq!(told(&format!("a: {{{}}}", "a: b,".repeat(20))), "`a` stands here a second time");
    }
}
