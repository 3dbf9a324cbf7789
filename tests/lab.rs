//! Lab files: what is wrong with one is told at once, with places; the reference is that of the schema. With KELLER_BLESS=1
//! the texts are written anew; read the difference.

use std::fs;
use std::path::Path;

use keller::lab::file::{self, schema};
use keller::lab::{Identity, Plan};

fn same(path: &str, text: &str) {
    if std::env::var_os("KELLER_BLESS").is_some() {
        fs::write(path, text).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "{path} is old; KELLER_BLESS=1 writes it anew:\n{text}");
}

fn read(text: &str) -> Plan {
    let name = Path::new("tests/lab/some.yaml");
    file::read(name, text.as_bytes(), None).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// What is told of a file that is wrong.
fn told(text: &str) -> String {
    file::read(Path::new("tests/lab/some.yaml"), text.as_bytes(), None).unwrap_err().to_string()
}

#[test]
fn every_kind_of_mistake_is_told_at_once() {
    for name in ["bad", "wrong"] {
        let path = format!("tests/lab/{name}.yaml");
        let bytes = fs::read(&path).unwrap();
        let told = file::read(Path::new(&path), &bytes, None).unwrap_err();
        same(&format!("tests/lab/{name}.txt"), &format!("{told}\n"));
    }
    assert!(told("lab: 2\nmachines: 7\n").contains("reads lab files of form 1, not 2"));
    assert!(told("machines: [{name: a, image: ok.raw}]\n").contains("begin with `lab: 1`"));
    assert!(told("lab: 1\n").contains("the lab has no machines"));
    assert!(told("lab: 1\nmachines: [{name: a}]\n").contains("the machine `a` has no image"));
    let many: String = (0..65).map(|number| format!("  - name: m{number}\n")).collect();
    assert!(told(&format!("lab: 1\nimage: ok.raw\nmachines:\n{many}")).contains("more than 64 machines"));
    assert!(told("lab: [1\n").contains("some.yaml:"));
}

#[test]
fn the_reference_is_that_of_the_schema() {
    same("docs/lab.md", &schema::markdown());
}

#[test]
fn a_file_says_what_is_meant() {
    let plan = read(
        "lab: 1\nimage: ok.raw\nmemory: 1GiB\nmachines:\n  - name: a\n  - {name: b, memory: 768MiB, cpus: 2, \
         address: 10.9.0.1/16, forward: [\"0:80\", \"8080:8080\"], disk: 2GiB, bus: nvme, clock: 2025-11-28}\n  - {name: e, node: e.yaml}\n",
    );
    let [a, b, e] = &plan.machines[..] else { panic!("{plan:?}") };
    assert_eq!(a.identity, Identity::Address([10, 77, 0, 1].into(), 24));
    assert_eq!((a.memory.bytes(), a.cpus, a.disk), (1 << 30, 1, None));
    assert_eq!(b.identity, Identity::Address([10, 9, 0, 1].into(), 16));
    assert_eq!((b.memory.bytes() >> 20, b.cpus, b.disk.map(|disk| disk.bytes())), (768, 2, Some(2 << 30)));
    assert_eq!((a.clock, b.clock.unwrap().to_string()), (None, "2025-11-28T00:00:00".to_owned()));
    assert_eq!(b.forwards, [(80, None), (8080, Some(8080))]);
    assert_eq!(a.image, Path::new("tests/lab/ok.raw"));
    assert_eq!(e.identity, Identity::Document("tests/lab/e.yaml".into()));
    // The document says nothing of the Ethernet.
    assert!(plan.warnings.len() == 1 && plan.warnings[0].contains(&e.mac()), "{:?}", plan.warnings);
    // A document for all is that of a machine that says nothing, whatever address its number would have.
    let plan = read(
        "lab: 1\nimage: ok.raw\nnode: e.yaml\nmachines: [{name: a, address: 10.77.0.2/24}, {name: e}]\n",
    );
    assert_eq!(plan.machines[0].identity, Identity::Address([10, 77, 0, 2].into(), 24));
    assert_eq!(plan.machines[1].identity, e.identity);
    // A flag comes before the file, which need not name an image then.
    let flag = Some(Path::new("other.raw"));
    let plan = file::read(Path::new("x"), b"lab: 1\nmachines: [{name: a}]\n", flag).unwrap();
    assert_eq!(plan.machines[0].image, Path::new("other.raw"));
}

#[test]
fn the_examples_are_right() {
    let page = fs::read_to_string("docs/lab.md").unwrap();
    let mut examples = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let starter = include_str!("../src/cli/starter/lab.yaml");
    for text in [examples.next().unwrap(), starter] {
        read(&text.replace("out/node_1.0.0.raw", "ok.raw"));
    }
    let document = examples.next().unwrap();
    keller::node::read("docs/lab.md", document.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(document.contains(&keller::lab::mac("a")), "the card of a is {}", keller::lab::mac("a"));
}
