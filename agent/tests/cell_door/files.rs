//! What is wrong with the files of a door is told before anything is served.

use celda::cell::door::{Door, Listen};

use crate::support::{Authority, listen};

fn refused(listen: &Listen) -> String {
    match Door::open(listen) {
        Ok(_) => panic!("it was opened: {listen:?}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn an_error_names_the_field_and_the_file() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let right = listen(directory.path(), &authority);
    let other = directory.path().join("other");
    let with = |change: &dyn Fn(&mut Listen)| {
        let mut listen = right.clone();
        change(&mut listen);
        refused(&listen)
    };
    assert!(with(&|listen| listen.key = Some(other.clone())).contains("listen.key"), "it is not there");
    std::fs::write(&other, "rubbish").unwrap();
    for (field, said) in [
        ("certificate", with(&|listen| listen.certificate = Some(other.clone()))),
        ("key", with(&|listen| listen.key = Some(other.clone()))),
        ("client_ca", with(&|listen| listen.client_ca = Some(other.clone()))),
    ] {
        assert!(said.contains(&format!("listen.{field} ")) && said.contains("PEM"), "{said}");
    }
    std::fs::write(&other, authority.certify(&["localhost"]).key).unwrap();
    assert!(with(&|listen| listen.key = Some(other.clone())).contains("with its key"), "another one's key");
    std::fs::write(&other, vec![b'x'; 2 << 20]).unwrap();
    assert!(with(&|listen| listen.client_ca = Some(other.clone())).contains("more than"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    assert!(with(&|listen| listen.address = Some(taken)).contains("in use"));
    drop(holder);
    assert!(
        Door::open(&Listen::default()).unwrap().is_none(),
        "nothing is served where nothing is configured"
    );
}
