//! The positioned tree to serde structs, with every fault and not only the first.
//!
//! serde stops at its first error. Here an error names the node that it is about; that node is
//! left out and the reading repeated, until nothing is wrong with what remains. As every field of
//! the structs is optional, what was left out looks absent and validation can go on.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::{Faults, Position, did_you_mean, quoted_list};
use super::tree::{Entry, Node, Value, join};

/// A value with its place in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub(super) position: Position,
    /// The path of its key.
    pub(super) key: String,
    pub(super) value: T,
}

impl<T> At<T> {
    /// The path of `key` inside this section.
    pub(super) fn key_of(&self, key: &str) -> String {
        join(&self.key, key)
    }
}

/// Reads a `T` and notes all faults. None only if nothing can be read at all.
pub(super) fn read<T: DeserializeOwned>(root: &Node, faults: &mut Faults) -> Option<T> {
    let mut pruned = BTreeSet::new();
    loop {
        let error = match T::deserialize(Reader { node: root, key: String::new(), pruned: &pruned })
        {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let Some(place) = error.place else {
            faults.push(root.position, "", error.fault.message());
            return None;
        };
        if let Fault::Unknown { key, expected } = &error.fault
            && let Some(known) = did_you_mean(key, expected.iter().copied())
        {
            let section = place.key.rsplit_once('.').map_or("", |(section, _)| section);
            faults.excuse(join(section, known));
        }
        faults.push(place.position, &place.key, error.fault.message());
        // The root cannot be left out, and nothing may be left out twice.
        if place.id == root.id || !pruned.insert(place.id) {
            return None;
        }
    }
}

#[derive(Debug)]
pub(super) struct Error {
    fault: Fault,
    place: Option<Place>,
}

/// The node that an error is about.
#[derive(Debug)]
struct Place {
    position: Position,
    key: String,
    id: usize,
}

#[derive(Debug)]
enum Fault {
    Unknown { key: String, expected: &'static [&'static str] },
    Other(String),
}

impl Fault {
    fn message(&self) -> String {
        match self {
            Self::Unknown { key, expected } => match did_you_mean(key, expected.iter().copied()) {
                Some(known) => format!("unknown key: did you mean `{known}`?"),
                None => format!(
                    "unknown key: possible here are {}",
                    quoted_list(expected.iter().copied())
                ),
            },
            Self::Other(message) => message.clone(),
        }
    }
}

impl Error {
    /// The error is about this node, unless it is already known to be about one inside.
    fn at(mut self, position: Position, key: &str, id: usize) -> Self {
        self.place.get_or_insert_with(|| Place { position, key: key.to_owned(), id });
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.message())
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { fault: Fault::Other(message.to_string()), place: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {expected}, found {found}"))
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        Self { fault: Fault::Unknown { key: key.to_owned(), expected }, place: None }
    }
}

/// A node at a key path, seen through what was left out.
#[derive(Clone)]
struct Reader<'n> {
    node: &'n Node,
    key: String,
    pruned: &'n BTreeSet<usize>,
}

const SECTION: &str = "a section of `key: value` lines";
const BOOLEAN: &str = "`true` or `false`";
const WHOLE_NUMBER: &str = "a whole number without unit";
const NUMBER: &str = "a number without unit";

impl<'n> Reader<'n> {
    fn wrong(&self, expected: &str) -> Error {
        let found = match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } => format!("`{}`", text.escape_debug()),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a section".to_owned(),
        };
        Error::custom(format!("expected {expected}, found {found}"))
    }

    fn plain<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Error> {
        match &self.node.value {
            Value::Scalar { text, quoted: false } => text.parse().map_err(|_| self.wrong(expected)),
            Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => {
                Err(self.wrong(expected))
            }
        }
    }

    /// Runs `read`, whose errors are about this node unless they say otherwise.
    fn locate<T>(self, read: impl FnOnce(Self) -> Result<T, Error>) -> Result<T, Error> {
        let (node, key) = (self.node, self.key.clone());
        read(self).map_err(|error| error.at(node.position, &key, node.id))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.locate(|this| match &this.node.value {
            Value::Scalar { text, .. } => visitor.visit_str(text),
            Value::Null | Value::List(_) | Value::Map(_) => Err(this.wrong("one value")),
        })
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.locate(|this| visitor.visit_bool(this.plain(BOOLEAN)?))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.locate(|this| visitor.visit_u64(this.plain(WHOLE_NUMBER)?))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.locate(|this| visitor.visit_f64(this.plain(NUMBER)?))
    }

    /// A list of one may be written without its brackets.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.locate(|this| {
            let items = match &this.node.value {
                Value::List(items) => items.as_slice(),
                Value::Scalar { .. } => std::slice::from_ref(this.node),
                Value::Null => &[],
                Value::Map(_) => {
                    return Err(this.wrong("a list (each entry begins with `-`)"));
                }
            };
            let bare = matches!(this.node.value, Value::Scalar { .. });
            visitor.visit_seq(Items { items: items.iter().enumerate(), list: &this, bare })
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.locate(|this| {
            let entries = match &this.node.value {
                Value::Map(entries) => entries.as_slice(),
                Value::Null => &[],
                Value::Scalar { .. } | Value::List(_) => return Err(this.wrong(SECTION)),
            };
            visitor.visit_map(Entries { entries: entries.iter(), current: None, section: &this })
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == AT {
            return visitor.visit_seq(Located { reader: self, given: 0 });
        }
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u16 u32 f32 char bytes byte_buf unit unit_struct tuple tuple_struct map
        enum identifier ignored_any
    }
}

struct Entries<'n, 'r> {
    entries: std::slice::Iter<'n, Entry>,
    current: Option<&'n Entry>,
    section: &'r Reader<'n>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let pruned = self.section.pruned;
        let Some(entry) = self.entries.find(|entry| !pruned.contains(&entry.node.id)) else {
            return Ok(None);
        };
        self.current = Some(entry);
        seed.deserialize(entry.key.as_str().into_deserializer()).map(Some).map_err(
            |error: Error| {
                error.at(entry.position, &join(&self.section.key, &entry.key), entry.node.id)
            },
        )
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self.current.take().ok_or_else(|| Error::custom("a value without a key"))?;
        let key = join(&self.section.key, &entry.key);
        seed.deserialize(Reader { node: &entry.node, key, pruned: self.section.pruned })
    }
}

struct Items<'n, 'r> {
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
    list: &'r Reader<'n>,
    /// It is one value without brackets, so its key has no index.
    bare: bool,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let pruned = self.list.pruned;
        let Some((index, node)) = self.items.find(|(_, node)| !pruned.contains(&node.id)) else {
            return Ok(None);
        };
        let key =
            if self.bare { self.list.key.clone() } else { format!("{}[{index}]", self.list.key) };
        seed.deserialize(Reader { node, key, pruned }).map(Some)
    }
}

/// The name by which [`At`] asks for its place.
const AT: &str = "rongate::config::At";

/// Line, column, key path and value, one after the other.
struct Located<'n> {
    reader: Reader<'n>,
    given: u8,
}

impl<'de> SeqAccess<'de> for Located<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.given += 1;
        let position = self.reader.node.position;
        let number = |n: u32| -> U32Deserializer<Error> { n.into_deserializer() };
        match self.given {
            1 => seed.deserialize(number(position.line)),
            2 => seed.deserialize(number(position.column)),
            3 => seed.deserialize(self.reader.key.as_str().into_deserializer()),
            _ => seed.deserialize(self.reader.clone()),
        }
        .map(Some)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(AT, AtVisitor(std::marker::PhantomData))
    }
}

struct AtVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
    type Value = At<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// From a reader that knows no places.
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<At<T>, D::Error> {
        let value = T::deserialize(deserializer)?;
        Ok(At { position: Position::default(), key: String::new(), value })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<At<T>, A::Error> {
        let short = || A::Error::custom("a part of the place is missing");
        let line = parts.next_element()?.ok_or_else(short)?;
        let column = parts.next_element()?.ok_or_else(short)?;
        let key = parts.next_element()?.ok_or_else(short)?;
        let value = parts.next_element()?.ok_or_else(short)?;
        Ok(At { position: Position { line, column }, key, value })
    }
}
