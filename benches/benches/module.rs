//! Every operation through the module at 1, 2, 8 and 32 threads for groups of 1, 2 and 3 members, beside SoftHSM2 and the
//! cryptographic library alone, each in a process of its own that lives as long as the run. `cargo xtask bench` measures the same in
//! turn and is the one to compare with; this is for a closer look at one row. A login is one of a whole process: one thread does it.
//!
//! It needs labs, named in `HATOKI_LABS` with a colon between them, and for SoftHSM2 (2.6 or later, at `benches::module::SOFTHSM2`)
//! an initialised token; who is not named does not take part.
//!
//! ```text
//! for n in 1 2 3; do cargo xtask lab up --release --members $n --dir /tmp/lab$n; done
//! export HATOKI_LABS=/tmp/lab1:/tmp/lab2:/tmp/lab3
//! export SOFTHSM2_CONF=... SOFTHSM2_LABEL=... SOFTHSM2_PIN=...
//! cargo bench -p benches --bench module -- p256-sign/8        the second half of a name is a contestant: p256-sign/8/hatoki-3
//! for n in 1 2 3; do cargo xtask lab down --dir /tmp/lab$n; done
//! ```

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use benches::child::Child;
use benches::module::SOFTHSM2;
use benches::work::NAMES;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tests::lab::read_environment;

/// The contestants that the environment names, and the library.
fn contestants() -> Vec<(String, Child)> {
    let start = |arguments: &[&str], environment: &BTreeMap<String, String>| {
        let child = Child::start(Path::new(env!("CARGO_BIN_EXE_hatoki-load")), arguments, environment);
        child.expect("what the environment names can be used")
    };
    let mut all = vec![("library".to_owned(), start(&["library"], &BTreeMap::new()))];
    let value = |name: &str| env::var(name).ok();
    if let (Some(_), Some(label), Some(pin)) =
        (value("SOFTHSM2_CONF"), value("SOFTHSM2_LABEL"), value("SOFTHSM2_PIN"))
    {
        let named = [("P11_MODULE", SOFTHSM2.to_owned()), ("P11_TOKEN_LABEL", label), ("P11_PIN", pin)];
        let environment = named.map(|(name, value)| (name.to_owned(), value)).into();
        all.push(("softhsm2".to_owned(), start(&["module"], &environment)));
    }
    for lab in env::split_paths(&value("HATOKI_LABS").unwrap_or_default()) {
        let environment = read_environment(&lab.join("env.sh"));
        let child = start(&["module", "--token-objects"], &environment);
        all.push((format!("hatoki-{}", members(&environment)), child));
    }
    all
}

/// How many members a lab has.
fn members(environment: &BTreeMap<String, String>) -> usize {
    let folder = environment.get("ChrystokiConfigurationPath").expect("env.sh names the configuration");
    let configuration = client::conf::location::load_from(Path::new(folder));
    configuration.expect("it can be read").expect("it is there").servers.len()
}

fn operations(criterion: &mut Criterion) {
    let mut contestants = contestants();
    for (work_name, work) in NAMES {
        for threads in [1usize, 2, 8, 32] {
            let mut group = criterion.benchmark_group(format!("{work_name}/{threads}"));
            for (name, child) in &mut contestants {
                let mut time =
                    |operations| child.time(*work, threads, operations).expect("every operation works");
                if time(0).is_none() {
                    continue;
                }
                group.bench_function(BenchmarkId::from_parameter(name), |bench| {
                    bench.iter_custom(|operations| time(operations).expect("is offered"));
                });
            }
        }
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
