//! The module over a null link at 1, 2, 8 and 32 threads: what happens between the application's call and the link.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use benches::null::Dispatch;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn dispatch(criterion: &mut Criterion) {
    let dispatch = Dispatch::new().expect("the module works over partitions of this process");
    let mut group = criterion.benchmark_group("dispatch/sign");
    for threads in [1usize, 2, 8, 32] {
        group.bench_function(BenchmarkId::from_parameter(threads), |bench| {
            bench.iter_custom(|operations| at(&dispatch, threads, operations));
        });
    }
}

/// The mean time of so many operations in each of so many threads.
fn at(dispatch: &Dispatch, threads: usize, operations: u64) -> Duration {
    let ready = Barrier::new(threads);
    let one = || {
        let mut signer = dispatch.signer().expect("a session can be opened");
        ready.wait();
        let begin = Instant::now();
        (0..operations).for_each(|_| signer.sign().expect("signs"));
        begin.elapsed()
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let spans = running.into_iter().map(|thread| thread.join().expect("a signer does not panic"));
        spans.sum::<Duration>() / u32::try_from(threads).unwrap_or(1)
    })
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
