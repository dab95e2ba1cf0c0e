//! What a container leaves on the machine: nothing. Alone in its binary, as it looks at the whole machine.

mod common;

use std::fs;

use common::{Celda, Leftovers};

#[test]
fn privileged_nothing_is_left_behind() {
    let Some(celda) = Celda::with_image("nothing_left") else { return };
    celda.shell(&[], "true");
    let before = Leftovers::now();
    for _ in 0..20 {
        celda.shell(&[], "busybox sleep 1000 & exit 0");
        let image = celda.image();
        celda.fails(127, &["run", "--rm", &image, "missing"]);
    }
    assert_eq!(Leftovers::now(), before);
    let containers = fs::read_dir(celda.root().join("containers")).expect("a directory").count();
    assert_eq!(containers, 0);
}
