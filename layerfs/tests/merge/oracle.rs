//! Random chains of layers against a merger that keeps whole paths in one map and knows no cleverness.

use std::collections::{BTreeMap, HashSet, VecDeque};

use celda_layerfs::Limits;
use celda_layerfs::tar::{Entry, EntryKind};
use celda_layerfs::tree::{Merger, TreeError};
use proptest::prelude::*;

use crate::entries::{device, directory, file, hard_link, show, symlink, whiteout};

type Path = Vec<String>;

/// Paths to (inode, what it is).
#[derive(Debug, Clone, Default)]
struct Naive {
    names: BTreeMap<Path, (usize, String)>,
    inodes_count: usize,
}

/// Why a walk leads nowhere.
enum Stop {
    File,
    Links,
    Shadowed,
}

fn components(path: &str) -> Path {
    path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
}

impl Naive {
    fn is(&self, path: &Path, kind: &str) -> bool {
        path.is_empty() && kind == "directory"
            || self.names.get(path).is_some_and(|(_, what)| what.starts_with(kind))
    }

    /// Where `path` leads.
    fn walk(&self, path: &[String], shadowed: &HashSet<Path>) -> Result<Path, Stop> {
        let mut at = Path::new();
        let mut left: VecDeque<(String, usize)> =
            path.iter().enumerate().map(|(index, name)| (name.clone(), index + 1)).collect();
        let mut links = 0;
        while let Some((name, literal)) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(name);
            let Some((_, what)) = self.names.get(&at) else { continue };
            if let Some(target) = what.strip_prefix("link ") {
                if literal > 0 && shadowed.contains(&path[..literal]) {
                    return Err(Stop::Shadowed);
                }
                links += 1;
                if links > 40 {
                    return Err(Stop::Links);
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                for name in components(target).into_iter().rev() {
                    left.push_front((name, 0));
                }
            } else if !what.starts_with("directory") {
                return Err(Stop::File);
            }
        }
        Ok(at)
    }

    fn remove(&mut self, path: &Path, with_itself: bool) {
        self.names.retain(|name, _| !name.starts_with(path) || name == path && !with_itself);
    }

    fn make(&mut self, path: Path, what: String) {
        self.inodes_count += 1;
        self.names.insert(path, (self.inodes_count, what));
    }

    fn whiteouts(&mut self, layer: &[Entry]) -> Result<(), usize> {
        let directories = layer.iter().filter(|entry| entry.kind == EntryKind::Directory);
        let shadowed: HashSet<Path> = directories.map(|entry| components(text(&entry.path))).collect();
        for (index, entry) in layer.iter().enumerate() {
            let mut path = components(text(&entry.path));
            let Some(removed) = path.pop().and_then(|name| Some(name.strip_prefix(".wh.")?.to_owned()))
            else {
                continue;
            };
            match self.walk(&path, &shadowed) {
                Ok(at) if removed == ".wh..opq" => self.remove(&at, false),
                Ok(mut at) => {
                    at.push(removed);
                    self.remove(&at, true);
                }
                Err(Stop::Links) => return Err(index),
                Err(Stop::File | Stop::Shadowed) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, layer: usize, entry: &Entry) -> Result<(), ()> {
        let mut path = components(text(&entry.path));
        let Some(name) = path.pop() else { return Ok(()) };
        if name.starts_with(".wh.") || entry.kind == (EntryKind::CharDevice { major: 0, minor: 0 }) {
            return Ok(());
        }
        let target = match &entry.kind {
            EntryKind::HardLink(target) => {
                let mut target = components(text(target));
                let name = target.pop().ok_or(())?;
                let mut at = self.walk(&target, &HashSet::new()).map_err(|_| ())?;
                at.push(name);
                Some(
                    self.names
                        .get(&at)
                        .filter(|(_, what)| !what.starts_with("directory"))
                        .cloned()
                        .ok_or(())?,
                )
            }
            _ => None,
        };
        let mut at = self.walk(&path, &HashSet::new()).map_err(|_| ())?;
        for count in 1..=at.len() {
            if !self.names.contains_key(&at[..count]) {
                self.make(at[..count].to_vec(), "directory 755".into());
            }
        }
        at.push(name);
        let what = match &entry.kind {
            EntryKind::Directory if self.is(&at, "directory") => {
                self.names.get_mut(&at).unwrap().1 = "directory 700".into();
                return Ok(());
            }
            EntryKind::Directory => "directory 700".into(),
            EntryKind::File(data) => format!("file {layer}:{}", data.size_bytes),
            EntryKind::Symlink(target) => format!("link {}", text(target)),
            EntryKind::CharDevice { major, minor } => format!("char {major}:{minor}"),
            _ => String::new(),
        };
        self.remove(&at, true);
        match target {
            Some(target) => drop(self.names.insert(at, target)),
            None => self.make(at, what),
        }
        Ok(())
    }

    /// Applies a layer; the index of the first entry that cannot be.
    fn layer(&mut self, number: usize, layer: &[Entry]) -> Result<(), usize> {
        self.whiteouts(layer)?;
        layer.iter().enumerate().try_for_each(|(index, entry)| self.entry(number, entry).map_err(|()| index))
    }

    fn show(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut first: BTreeMap<usize, String> = BTreeMap::new();
        let by_path: BTreeMap<String, &(usize, String)> =
            self.names.iter().map(|(path, named)| (path.join("/"), named)).collect();
        for (path, (inode, what)) in by_path {
            let same = first.get(inode).map_or_else(String::new, |first| format!(" = {first}"));
            lines.push(format!("{path} {what}{same}"));
            first.entry(*inode).or_insert(path);
        }
        lines
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c", "d"], 1..4).prop_map(|names| names.join("/"))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let target = prop_oneof![
        path(),
        path().prop_map(|path| format!("/{path}")),
        path().prop_map(|path| format!("../{path}")),
        path().prop_map(|path| format!("{path}/../b")),
        path().prop_map(|path| format!("./{path}/.")),
        Just("..".to_owned()),
        Just("/".to_owned()),
    ];
    let sibling = |name: String, prefix: &str| match name.rsplit_once('/') {
        Some((parent, name)) => format!("{parent}/{prefix}{name}"),
        None => format!("{prefix}{name}"),
    };
    prop_oneof![
        5 => path().prop_map(|path| directory(&path)),
        5 => (path(), 1u64..9).prop_map(|(path, size)| file(&path, size)),
        4 => (path(), target).prop_map(|(path, target)| symlink(&path, &target)),
        3 => (path(), path()).prop_map(|(path, target)| hard_link(&path, &target)),
        1 => (path(), 0u32..2).prop_map(|(path, minor)| device(&path, 0, minor)),
        3 => path().prop_map(move |path| whiteout(&sibling(path, ".wh."))),
        2 => path().prop_map(|path| whiteout(&format!("{path}/.wh..wh..opq"))),
        1 => Just(whiteout(".wh..wh..opq")),
    ]
}

/// What both mergers make of `layers`, or the entry that neither can apply.
fn compare(layers: &[Vec<Entry>]) -> Result<Option<(usize, usize)>, TestCaseError> {
    let (mut naive, mut merger) = (Naive::default(), Merger::new(&Limits::default()));
    for (number, layer) in layers.iter().enumerate() {
        match (naive.layer(number, layer), merger.add_layer(layer.clone())) {
            (Ok(()), Ok(())) => {}
            (Err(index), Err(TreeError::Entry { header_offset, .. })) if header_offset == index as u64 => {
                return Ok(Some((number, index)));
            }
            (expected, got) => prop_assert!(false, "{expected:?} but {got:?} for {layers:#?}"),
        }
    }
    prop_assert_eq!(show(&merger.finish()), naive.show());
    Ok(None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// An entry that cannot be applied is an error of both, then left out, so that what comes after is tried too.
    #[test]
    fn random_chains_merge_as_the_naive_merger_has_it(
        mut layers in proptest::collection::vec(proptest::collection::vec(any_entry(), 0..14), 1..5)
    ) {
        number(&mut layers);
        while let Some((layer, index)) = compare(&layers)? {
            layers[layer].remove(index);
            number(&mut layers);
        }
    }
}

/// Gives each entry its index as the offset that errors name.
fn number(layers: &mut [Vec<Entry>]) {
    for layer in layers {
        for (index, entry) in layer.iter_mut().enumerate() {
            entry.header_offset = index as u64;
        }
    }
}
