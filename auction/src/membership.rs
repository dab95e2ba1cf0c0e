//! Who the cells are: a source of members that join and leave.
//!
//! ```text
//! name,zone,address,architecture,stacks,tags,reserved_for,volumes        a list, as CSV
//! cell-1,z1,https://cell-1:7000,amd64,jammy;noble,ssd,,nfs               several names: with ; between
//! ```
//! A list is the simplest source. A registry that knows who is alive is another: it implements [`Membership`], and
//! [`crate::client::Cells::follow`] does the rest.

use crate::transport::{Address, Error, Result};
use crate::view::{CELLS_MAX, Class};
use std::collections::HashSet;
use std::future::Future;
use std::io::Read;
use std::sync::Arc;

/// What lies between several names in a field of a list.
const SEPARATOR: char = ';';

/// A cell that auctioneers may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, which no other member has.
    pub name: Box<str>,
    /// The name of its zone.
    pub zone: Box<str>,
    /// What it is and has.
    pub class: Class,
    /// Where it listens.
    pub address: Address,
}

/// A change of who the cells are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A cell joined, or one of this name is different from now on.
    Joined(Arc<Member>),
    /// The cell of this name left.
    Left(Box<str>),
}

/// A source of members.
pub trait Membership: Send {
    /// Waits for the next change; nothing when there will be none. The members at the start are the first changes.
    ///
    /// May be dropped while it waits, and called again: no change is lost.
    fn next(&mut self) -> impl Future<Output = Option<Change>> + Send;
}

/// Members that never change.
#[derive(Debug, Clone, Default)]
pub struct List {
    members: std::collections::VecDeque<Arc<Member>>,
}

impl List {
    /// These members.
    #[must_use]
    pub fn new(members: Vec<Member>) -> Self {
        Self { members: members.into_iter().map(Arc::new).collect() }
    }

    /// Reads a list as in the [module](self)'s head: `name`, `zone` and `address` must be there, columns may be in any
    /// order, and those that are not known are ignored.
    ///
    /// # Errors
    /// [`Error::List`] with the line: no CSV, a column is missing, no address, a name twice, or more than [`CELLS_MAX`].
    pub fn from_csv(source: impl Read) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let headers = reader.headers().map_err(|error| list_error(&error))?.clone();
        let column = |name: &str| headers.iter().position(|header| header == name);
        let required = |name: &'static str| {
            column(name).ok_or_else(|| Error::List { line: 1, what: format!("there is no column {name}") })
        };
        let (name, zone, address) = (required("name")?, required("zone")?, required("address")?);
        let lists = ["stacks", "tags", "reserved_for", "volumes"].map(column);
        let architecture = column("architecture");
        let (mut members, mut names) = (Vec::new(), HashSet::new());
        for record in reader.records() {
            let record = record.map_err(|error| list_error(&error))?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |what: String| Error::List { line, what };
            let field =
                |column: Option<usize>| column.and_then(|column| record.get(column)).unwrap_or_default();
            let several = |column| {
                let parts = field(column).split(SEPARATOR).map(str::trim).filter(|part| !part.is_empty());
                parts.map(Into::into).collect::<Vec<Box<str>>>()
            };
            let member_name: Box<str> = field(Some(name)).into();
            if member_name.is_empty() || !names.insert(member_name.clone()) {
                return Err(wrong(format!("the name {member_name:?} is empty, or there twice")));
            }
            if names.len() > CELLS_MAX as usize {
                return Err(wrong(format!("more than {CELLS_MAX} cells")));
            }
            let [stacks, tags, reserved_for, volumes] = lists.map(several);
            members.push(Member {
                name: member_name,
                zone: field(Some(zone)).into(),
                class: Class {
                    architecture: field(architecture).into(),
                    stacks,
                    tags,
                    reserved_for,
                    volumes,
                },
                address: field(Some(address)).parse().map_err(|error: Error| wrong(error.to_string()))?,
            });
        }
        Ok(Self::new(members))
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|member| &**member)
    }
}

impl Membership for List {
    async fn next(&mut self) -> Option<Change> {
        self.members.pop_front().map(Change::Joined)
    }
}

fn list_error(error: &csv::Error) -> Error {
    let line = error.position().map_or(0, csv::Position::line);
    Error::List { line, what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_in_any_order_of_columns() {
        let text = "zone, name, colour, address, tags\nz1, a, red, http://127.0.0.1:7000, ssd; gpu\nz2,b,,unix:/b,\n";
        let list = List::from_csv(text.as_bytes()).unwrap();
        let [a, b] = list.members().collect::<Vec<_>>()[..] else { panic!("two members") };
        assert_eq!(
            (&*a.name, &*a.zone, a.address.to_string().as_str()),
            ("a", "z1", "http://127.0.0.1:7000")
        );
        assert_eq!(a.class.tags, ["ssd".into(), "gpu".into()]);
        assert_eq!((&*b.name, b.class.clone()), ("b", Class::default()));
    }

    #[test]
    fn a_wrong_list_names_the_line() {
        for (text, line) in [
            ("name,zone\na,z\n", 1),
            ("name,zone,address\na,z,unix:/a\na,z,unix:/b\n", 3),
            ("name,zone,address\n,z,unix:/a\n", 2),
            ("name,zone,address\na,z,nowhere\n", 2),
            ("name,zone,address\na,z,http://10.0.0.1:1\n", 2),
            ("name,zone,address\na,z\n", 2),
        ] {
            match List::from_csv(text.as_bytes()) {
                Err(Error::List { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
