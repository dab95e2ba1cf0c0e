//! Images go before the disk is full, and never one that is needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use celda_api::cell::v1;

use crate::common::SmallDisk;
use crate::support::{Cell, FOR_EVER};

const MIB: u64 = 1 << 20;
const MARKS: &str = "[images]\ngc_high_percent = 80\ngc_low_percent = 75\ngc_every_s = 1";

impl Cell {
    /// Packs and pulls an image with a shell and so many bytes that are like no other's, last used so long ago.
    fn image_of(&self, tag: &str, mib: u64, unused_s: u64) -> String {
        let image = self.image().replace(":1", &format!(":{tag}"));
        let content = self.files().join(tag);
        let mut file = fs::File::create(&content).unwrap();
        let mut random = std::io::Read::take(fs::File::open("/dev/urandom").unwrap(), mib * MIB);
        std::io::copy(&mut random, &mut file).unwrap();
        let busybox = crate::common::busybox(tag).unwrap();
        let pairs = ["/bin/busybox", "/bin/sh"].map(|inside| format!("{}:{inside}", busybox.display()));
        let content = format!("{}:/content", content.display());
        self.ok(&["pack", &image, &pairs[0], &pairs[1], &content, "--cmd", "/bin/sh"]);
        let before = self.indexes();
        self.ok(&["pull", "--quiet", &image]);
        let new: Vec<PathBuf> = self.indexes().difference(&before).cloned().collect();
        let used_at = SystemTime::now() - Duration::from_secs(unused_s);
        fs::File::open(&new[0]).unwrap().set_modified(used_at).unwrap();
        image
    }

    fn indexes(&self) -> BTreeSet<PathBuf> {
        let sinks = [self.root().join("index/sha256"), self.root().join("trees")];
        let entries = sinks.iter().flat_map(|sink| fs::read_dir(sink).into_iter().flatten().flatten());
        let leased = |path: PathBuf| if path.is_dir() { path.join("lease") } else { path };
        entries.map(|entry| leased(entry.path())).filter(|path| path.exists()).collect()
    }

    fn has(&self, image: &str) -> bool {
        self.ok(&["images", "--json"]).contains(image)
    }

    /// Fills the store's disk up to a percentage.
    pub(crate) fn fill_disk_to(&self, percent: u64) {
        let (used_bytes, left_bytes) = SmallDisk::space(&self.root());
        let wanted_bytes = (used_bytes + left_bytes) * percent / 100;
        let mut ballast =
            fs::File::options().append(true).create(true).open(self.root().join("ballast")).unwrap();
        ballast
            .write_all(&vec![1; usize::try_from(wanted_bytes.saturating_sub(used_bytes)).unwrap()])
            .unwrap();
        ballast.sync_all().unwrap();
    }
}

#[test]
fn privileged_images_that_nobody_needs_go_before_the_disk_is_full() {
    let Some(mut cell) = Cell::up_on_disk("images_go", 128, MARKS) else { return };
    let day_s = 86_400;
    // The two that are needed were used longest ago.
    let runs = cell.image_of("runs", 12, 9 * day_s);
    let waits = cell.image_of("waits", 12, 8 * day_s);
    let old = cell.image_of("old", 12, 7 * day_s);
    let newer = cell.image_of("newer", 12, 6 * day_s);
    let script = |image: &str, name: &str, script: &str| {
        let args = ["run", "-d", "--name", name, "--restart", "always", image, "/bin/sh", "-c", script];
        cell.ok(&args)
    };
    script(&runs, "runs", FOR_EVER);
    script(&waits, "waits", "exit 3");
    cell.wait("waits", |one| one.status() == v1::Status::Waiting);
    // A new agent has no image of its own: what runs is leased by the holder, what waits is named by the journal.
    cell.kill();
    cell.begin();
    let (_, token) = cell.list();
    cell.fill_disk_to(81);
    let mut client = cell.client();
    let gone = async {
        let request = v1::WatchRequest { token, ..v1::WatchRequest::default() };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        loop {
            let events = stream.message().await.unwrap().expect("an event").events;
            if let Some(gone) = events.into_iter().find_map(|event| event.image_gone) {
                return gone;
            }
        }
    };
    let gone = cell.runtime.block_on(gone);
    assert_eq!(gone.names, std::slice::from_ref(&old));
    assert!(gone.used_percent >= 80 && gone.last_use_s > 0, "{gone:?}");
    for image in [&runs, &waits, &newer] {
        assert!(cell.has(image), "{image} was removed");
    }
    assert!(!cell.has(&old));
    let metrics = cell.ok(&["metrics"]);
    assert!(metrics.contains("\ncelda_images_removed_total 1\n"), "{metrics}");
    let (used_bytes, left_bytes) = SmallDisk::space(&cell.root());
    assert!(used_bytes * 100 / (used_bytes + left_bytes) < 80, "its space is free");
    assert_eq!(cell.wait("runs", |one| one.status() == v1::Status::Running).attempt, 1);
    // Wanted again, it is fetched again.
    fs::remove_file(cell.root().join("ballast")).unwrap();
    cell.ok(&["run", "-d", "--name", "back", &old, "/bin/sh", "-c", FOR_EVER]);
    assert!(cell.has(&old));
    cell.leaves_nothing("images");
}
