//! YAML text to a tree in which every key and value knows its place.
//!
//! The part of YAML that a configuration needs: one document of maps, lists and scalars. Tags,
//! anchors and aliases are refused, so that a file means what it shows and cannot explode.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "events that have no place in a configuration are refused, whichever come to be"
)]

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::fault::{Faults, Position};

/// A configuration is four deep; more is a mistake, or an attempt on our stack.
const DEPTH_MAX: usize = 16;

/// A value with its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    /// Unique in the tree.
    pub(super) id: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, as in `lan:` with all its keys commented out.
    Null,
    Scalar {
        text: String,
        /// Whether it was quoted, and so is text whatever it looks like.
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) node: Node,
}

/// Reads `text`. Faults of the file's form end the reading; a duplicate key is noted and dropped.
pub(super) fn parse(text: &str, faults: &mut Faults) -> Option<Node> {
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0, faults };
    match reader.document() {
        Ok(root) => Some(root),
        Err(Refused { position, key, message }) => {
            faults.push(position, &key, message);
            None
        }
    }
}

struct Reader<'t, 'f> {
    parser: Parser<'t, StrInput<'t>>,
    nodes: usize,
    faults: &'f mut Faults,
}

/// A fault that ends the reading.
struct Refused {
    position: Position,
    key: String,
    message: String,
}

impl Refused {
    fn new(position: Position, key: &str, message: &str) -> Self {
        Self { position, key: key.to_owned(), message: message.to_owned() }
    }
}

impl From<ScanError> for Refused {
    fn from(error: ScanError) -> Self {
        let hint = if error.info().contains("tab") { " (indent with spaces)" } else { "" };
        Self {
            position: position_of(error.marker()),
            key: String::new(),
            message: format!("this is not valid YAML: {}{hint}", error.info()),
        }
    }
}

fn position_of(marker: &Marker) -> Position {
    let convert = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: convert(marker.line()), column: convert(marker.col()).saturating_add(1) }
}

impl<'t> Reader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Refused> {
        Ok(self.parser.next_event().unwrap_or_else(|| Ok((Event::StreamEnd, Span::default())))?)
    }

    fn document(&mut self) -> Result<Node, Refused> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            let position = position_of(&span.start);
            match event {
                Event::StreamEnd => break,
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                _ if root.is_some() => {
                    let message = "a second document begins here: keep one in a file";
                    return Err(Refused::new(position, "", message));
                }
                event => root = Some(self.node(event, position, "", 0)?),
            }
        }
        Ok(root.unwrap_or_else(empty))
    }

    fn node(
        &mut self,
        event: Event<'_>,
        position: Position,
        key: &str,
        depth: usize,
    ) -> Result<Node, Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::new(position, key, "nested too deeply"));
        }
        self.nodes += 1;
        let id = self.nodes;
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(anchor) => (*anchor, false),
            _ => (0, false),
        };
        if anchor != 0 {
            let message = "anchors and aliases (`&`, `*`) are not supported: write the value out, \
                           or quote it if it begins with that character";
            return Err(Refused::new(position, key, message));
        }
        if tag {
            let message = "tags (`!`) are not supported: remove it, or quote the value";
            return Err(Refused::new(position, key, message));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => self.list(key, depth)?,
            Event::MappingStart(..) => self.map(key, depth)?,
            _ => return Err(Refused::new(position, key, "a value is missing here")),
        };
        Ok(Node { position, id, value })
    }

    fn list(&mut self, key: &str, depth: usize) -> Result<Value, Refused> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::List(items));
            }
            let key = format!("{key}[{}]", items.len());
            items.push(self.node(event, position_of(&span.start), &key, depth + 1)?);
        }
    }

    fn map(&mut self, key: &str, depth: usize) -> Result<Value, Refused> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let position = position_of(&span.start);
            let name = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(name, _, 0, None) => name.into_owned(),
                _ => return Err(Refused::new(position, key, "a key must be a plain word")),
            };
            let path = join(key, &name);
            let (event, span) = self.next()?;
            let node = self.node(event, position_of(&span.start), &path, depth + 1)?;
            match entries.iter().find(|entry| entry.key == name) {
                Some(first) => {
                    let message =
                        format!("the key is given twice, first in line {}", first.position.line);
                    self.faults.push(position, &path, message);
                }
                None => entries.push(Entry { key: name, position, node }),
            }
        }
    }
}

fn empty() -> Node {
    Node { position: Position { line: 1, column: 1 }, id: 0, value: Value::Null }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text, quoted }
}

/// The path of `key` inside the section at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
