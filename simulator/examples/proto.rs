//! proto
use simulator::*;
use std::time::Instant;
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let t = Instant::now();
    let trace = trace::Trace::open(path.as_ref(), &trace::TraceOptions::default(), Default::default()).unwrap();
    let (rec, out) = Recording::of(trace, false, || true);
    out.unwrap();
    let read = t.elapsed().as_secs_f64();
    let s = *rec.survey();
    println!("read {read:.3} requests {} distinct {}", s.requests, s.distinct);
    let pol: Vec<String> = std::env::args().nth(2).unwrap().split(',').map(String::from).collect();
    let fr: Vec<f64> = (0..10).map(|i| 0.01 * 100f64.powf(i as f64 / 9.0)).collect();
    let sim = Simulator::default();
    let seedn: u64 = 4;
    for p in &pol {
        for f in &fr {
            let cap = ((s.distinct as f64) * f).round() as u64;
            let cache = |c: u64| Cache { mode: Mode::Items, capacity: c, ttl_seconds: None, seed: 0 };
            let run = |r: &Recording, c: u64| { let t = Instant::now(); let mut x = sim.simulation(&PolicyChoice::named(p), &cache(c)).unwrap(); for b in r.blocks() { x.replay(&b); } (x.tally(), t.elapsed().as_secs_f64()) };
            let (full, secs) = run(&rec, cap);
            let exact = full.misses as f64 / full.requests as f64;
            print!("{p:>12} {cap:>6} exact {exact:.4} {secs:.3}s |");
            for rate in [0.3, 0.1, 0.05, 0.025, 0.0125] {
                let (mut e0, mut e1, mut e2) = (0.0, 0.0, 0.0);
                for seed in 0..seedn {
                    let sub = rec.sampled(rate, seed);
                    let (t, _) = run(&sub, ((cap as f64) * rate).round().max(1.0) as u64);
                    let n = s.requests as f64 * rate;
                    let raw = t.misses as f64 / t.requests as f64;
                    let adj = t.misses as f64 / n;
                    e0 += (raw - exact).abs(); e1 += (adj - exact).abs();
                    // miss scale by distinct
                    let d = sub.survey().distinct as f64; let adj2 = t.misses as f64 / d * s.distinct as f64 / s.requests as f64;
                    e2 += (adj2 - exact).abs();
                }
                let k = seedn as f64;
                print!(" {rate}: raw {:.4} adj {:.4} dst {:.4} |", e0 / k, e1 / k, e2 / k);
            }
            println!();
        }
    }
}
