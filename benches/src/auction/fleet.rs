//! Cells in this process: a view and a ledger for each.

use crate::Result;
use celda_auction::demand::Resources;
use celda_auction::ledger::{Epoch, Ledger, ReservationId, Terms};
use celda_auction::local::Placement;
use celda_auction::view::{CellIndex, Class, View, ZoneIndex};
use celda_auction::{AppId, Demand};
use serde::Deserialize;
use std::path::Path;

/// The epoch of all cells here: none restarts.
pub(super) const EPOCH: Epoch = Epoch(1);
/// Above all that a bench lasts.
const TTL_US: u64 = celda_auction::ledger::TTL_MAX_US;

/// Cells in this process.
pub(super) struct Fleet {
    pub(super) view: View,
    pub(super) ledgers: Vec<Ledger>,
}

/// A line of a file of cells.
#[derive(Deserialize)]
struct CellLine {
    #[serde(rename = "name")]
    _name: String,
    zone: String,
    cpu_milli: u32,
    memory_mib: u32,
    disk_mib: u32,
    containers: u32,
}

impl Fleet {
    /// A fleet of no cells.
    fn new() -> Self {
        Self { view: View::new(), ledgers: Vec::new() }
    }

    /// Equal cells, dealt to the zones in turn, with room for so many reservations each.
    pub(super) fn uniform(cells: u32, zones: u32, capacity: &Resources, reservations: u32) -> Result<Self> {
        let mut fleet = Self::new();
        for number in 0..cells {
            fleet.join(&format!("z{}", number % zones), capacity, reservations)?;
        }
        Ok(fleet)
    }

    /// The cells of a CSV file with the columns `name,zone,cpu_milli,memory_mib,disk_mib,containers`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut fleet = Self::new();
        let reader = csv::Reader::from_path(path);
        let mut reader = reader.map_err(|error| format!("cells of {}: {error}", path.display()))?;
        for line in reader.deserialize() {
            let CellLine { zone, cpu_milli, memory_mib, disk_mib, containers, .. } =
                line.map_err(|error| format!("cells of {}: {error}", path.display()))?;
            let capacity = Resources { cpu_milli, memory_mib, disk_mib, containers, ports: 0 };
            fleet.join(&zone, &capacity, containers)?;
        }
        if fleet.ledgers.is_empty() {
            return Err(format!("cells of {}: there are none", path.display()).into());
        }
        Ok(fleet)
    }

    fn join(&mut self, zone: &str, capacity: &Resources, reservations: u32) -> Result<()> {
        let class = self.view.class(&Class::default())?;
        let zone = self.view.zone(zone)?;
        self.view.join(class, zone)?;
        self.ledgers.push(Ledger::new(capacity, reservations, EPOCH)?);
        Ok(())
    }

    /// What a cell has in all.
    pub(super) fn capacity(&self, cell: CellIndex) -> Resources {
        let shape = self.ledgers[cell.0 as usize].shape();
        shape.resources(shape.total(), shape.ports())
    }

    /// Every cell with its zone.
    pub(super) fn cells(&self) -> impl Iterator<Item = (CellIndex, ZoneIndex)> {
        (0..self.view.cells_bound())
            .map(CellIndex)
            .filter_map(|cell| Some((cell, self.view.place(cell)?.zone)))
    }

    /// Runs `count` instances of apps of their own on a cell, as if from before.
    pub(super) fn run(&self, cell: CellIndex, count: u32, resources: Resources) -> Result<()> {
        let ledger = &self.ledgers[cell.0 as usize];
        for number in 0..count {
            let name = 1 << 62 | u64::from(cell.0) << 16 | u64::from(number);
            let demand = Demand { app: AppId(name), resources, ..Demand::default() };
            let id = ReservationId::new(name).ok_or("the id is not 0")?;
            let terms = Terms { epoch: EPOCH, now_us: 0, ttl_us: TTL_US };
            let held = ledger.reserve(id, &demand, terms);
            held.map_err(|refused| format!("cell {} has no room to begin with: {refused:?}", cell.0))?;
            ledger.commit(id);
        }
        Ok(())
    }

    /// Commits what is placed.
    pub(super) fn commit(&self, placements: &[Placement]) {
        for placement in placements {
            let ledger = &self.ledgers[placement.cell.0 as usize];
            for offset in 0..placement.count {
                ledger.commit(placement.first.plus(offset));
            }
        }
    }

    /// Releases what is placed.
    pub(super) fn release(&self, placements: &[Placement]) {
        for placement in placements {
            let ledger = &self.ledgers[placement.cell.0 as usize];
            for offset in 0..placement.count {
                ledger.release(placement.first.plus(offset));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fleet> {
        let directory = tempfile::tempdir().expect("a folder for the test");
        let path = directory.path().join("cells.csv");
        std::fs::write(&path, text).expect("a file for the test");
        Fleet::read(&path)
    }

    const HEAD: &str = "name,zone,cpu_milli,memory_mib,disk_mib,containers\n";

    #[test]
    fn cells_of_a_file_have_their_zones_and_capacities() {
        let fleet = read(&format!("{HEAD}a,east,4000,8192,10000,50\nb,west,64000,262144,100000,250\n"))
            .expect("sound");
        let zones: Vec<_> = fleet
            .cells()
            .map(|(_, zone)| fleet.view.zone_name(zone).expect("has a name").to_owned())
            .collect();
        assert_eq!(zones, ["east", "west"]);
        assert_eq!(fleet.capacity(CellIndex(0)).cpu_milli, 4_000);
        assert_eq!(fleet.capacity(CellIndex(1)).containers, 250);
    }

    #[test]
    fn what_is_wrong_with_a_file_of_cells_is_said() {
        let nine = "a,z,9,9,9,9\n";
        let zones: String =
            (0..=celda_auction::view::ZONES_MAX).map(|zone| format!("a,z{zone},9,9,9,9\n")).collect();
        for (text, says) in [
            (String::new(), "there are none"),
            (HEAD.to_owned(), "there are none"),
            (format!("name,zone,cpu_milli\n{nine}"), "line: 2"),
            (format!("{HEAD}a,z,-1,9,9,9\n"), "field 2"),
            (format!("{HEAD}a,z,9,99999999999,9,9\n"), "field 3"),
            (format!("{HEAD}a,z,9\n"), "line: 2"),
            (format!("{HEAD}a,z,0,9,9,9\n"), "cpu"),
            (format!("{HEAD}{zones}"), "zones"),
        ] {
            let error = read(&text).err().expect("is refused").to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
