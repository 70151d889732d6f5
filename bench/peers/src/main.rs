//! The rust-vmm crates at the work that `make bench` gives to every contender (bench/README.md).
//!
//! `peer queue IMAGE REGIONS BITMAP SIZE DESC AVAIL USED CHAINS EVENT_IDX [gather|scatter BYTES]`, `peer memory BYTES BITMAP` or
//! `peer access COUNT REGIONS BITMAP`; then, for each line on stdin, so many rounds, answered by one line: ns a chain, ns a
//! read and ns a write, or ns a load, a store, a read_obj and a write_obj.

use std::hint::black_box;
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RING_IDX: u64 = 2;
const ACCESS_MEMORY: usize = 1 << 20;

/// What the harness says about a ring that lies ready in the image.
struct Ring {
    size: u16,
    desc: u64,
    avail: u64,
    used: u64,
    chains: u16,
    event_idx: bool,
    /// What is done with the bytes of a chain, and how many of them.
    way: Way,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Walk,
    Gather,
    Scatter,
}

impl Ring {
    fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).expect("queue size");
        queue.set_size(self.size);
        queue.set_desc_table_address(Some(self.desc as u32), Some((self.desc >> 32) as u32));
        queue.set_avail_ring_address(Some(self.avail as u32), Some((self.avail >> 32) as u32));
        queue.set_used_ring_address(Some(self.used as u32), Some((self.used >> 32) as u32));
        queue.set_event_idx(self.event_idx);
        queue.set_ready(true);
        queue
    }
}

fn ranges(size: usize, regions: usize) -> Vec<(GuestAddress, usize)> {
    let part = size / regions;
    (0..regions).map(|i| (GuestAddress((i * part) as u64), part)).collect()
}

/// Where access `i` goes: over all of memory in an order that no prefetcher knows, as bench/p5_access.py has it.
fn access_address(i: usize) -> u64 {
    (i as u64 * 0x9E37_79B1) % (ACCESS_MEMORY as u64 / 8) * 8
}

/// Answer each line, a number of rounds, with what `work` says.
fn serve(mut work: impl FnMut(u64) -> String) {
    for line in io::stdin().lock().lines() {
        let rounds = line.expect("stdin").trim().parse().expect("rounds");
        println!("{}", work(rounds));
        io::stdout().flush().expect("stdout");
    }
}

/// One function per kind of bitmap: the crates' generic bounds differ between the versions.
macro_rules! contender {
    ($queue:ident, $memory:ident, $access:ident, $bitmap:ty) => {
        fn $queue(image: &[u8], regions: usize, ring: &Ring) {
            let mem = GuestMemoryMmap::<$bitmap>::from_ranges(&ranges(image.len(), regions)).expect("memory");
            mem.write_slice(image, GuestAddress(0)).expect("image");
            let mut queue = ring.queue();
            let mut heads = vec![0u16; usize::from(ring.chains)];
            // One buffer for all chains of a batch, as everybody has it here. Zeros that nobody wrote would be one page.
            let mut store = vec![1u8; heads.len() * ring.bytes + 4096];
            let page = store.as_ptr().align_offset(4096);
            let buffer = &mut store[page..];
            let written = if ring.way == Way::Scatter { ring.bytes as u32 } else { 0 };
            let mut next = 0u16;
            serve(|rounds| {
                let mut ns = 0;
                for _ in 0..rounds {
                    next = next.wrapping_add(ring.chains);
                    mem.store(next, GuestAddress(ring.avail + RING_IDX), Ordering::Release).expect("index");
                    let start = Instant::now();
                    let mut count = 0;
                    // One iterator for the batch: faster than pop_descriptor_chain, which makes one for each chain.
                    for chain in queue.iter(&mem).expect("ring") {
                        heads[count] = chain.head_index();
                        let part = &mut buffer[count * ring.bytes..(count + 1) * ring.bytes];
                        count += 1;
                        match ring.way {
                            Way::Walk => {
                                for segment in chain {
                                    black_box((segment.addr(), segment.len(), segment.is_write_only()));
                                }
                            }
                            Way::Gather => chain.reader(&mem).expect("reader").read_exact(part).expect("read"),
                            Way::Scatter => chain.writer(&mem).expect("writer").write_all(part).expect("write"),
                        }
                    }
                    for head in &heads[..count] {
                        queue.add_used(&mem, *head, written).expect("used");
                    }
                    black_box(&mut *buffer);
                    black_box(queue.needs_notification(&mem).expect("decision"));
                    ns += start.elapsed().as_nanos();
                    assert_eq!(count, heads.len());
                }
                format!("{}", ns as f64 / (rounds * u64::from(ring.chains)) as f64)
            });
        }

        fn $memory(bytes: usize) {
            let size = 4 * bytes;
            serve(|rounds| {
                // Fresh for each line: which physical pages one gets decides how well they share a cache.
                let mem = GuestMemoryMmap::<$bitmap>::from_ranges(&ranges(size, 1)).expect("memory");
                mem.write_slice(&vec![1; size], GuestAddress(0)).expect("fill");
                let mut store = vec![2; bytes + 4096];
                let page = store.as_ptr().align_offset(4096);
                let buffer = &mut store[page..page + bytes];
                let start = Instant::now();
                for _ in 0..rounds {
                    mem.read_slice(black_box(&mut *buffer), GuestAddress(bytes as u64)).expect("read");
                }
                let read = start.elapsed().as_nanos() as f64 / rounds as f64;
                let start = Instant::now();
                for _ in 0..rounds {
                    mem.write_slice(black_box(&*buffer), GuestAddress(bytes as u64)).expect("write");
                }
                format!("{read} {}", start.elapsed().as_nanos() as f64 / rounds as f64)
            });
        }

        fn $access(count: usize, regions: usize) {
            let mem = GuestMemoryMmap::<$bitmap>::from_ranges(&ranges(ACCESS_MEMORY, regions)).expect("memory");
            mem.write_slice(&vec![1; ACCESS_MEMORY], GuestAddress(0)).expect("fill");
            let addresses: Vec<_> = (0..count).map(|i| GuestAddress(access_address(i))).collect();
            let mut values = vec![0u64; count];
            serve(|rounds| {
                let per_access = |start: Instant| start.elapsed().as_nanos() as f64 / (rounds as usize * count) as f64;
                let start = Instant::now();
                for _ in 0..rounds {
                    for (addr, value) in addresses.iter().zip(values.iter_mut()) {
                        *value = mem.load(*addr, Ordering::Relaxed).expect("load");
                    }
                    black_box(&mut values);
                }
                let load = per_access(start);
                let start = Instant::now();
                for _ in 0..rounds {
                    for (addr, value) in addresses.iter().zip(black_box(&values)) {
                        mem.store(*value, *addr, Ordering::Relaxed).expect("store");
                    }
                }
                let store = per_access(start);
                let start = Instant::now();
                for _ in 0..rounds {
                    for (addr, value) in addresses.iter().zip(values.iter_mut()) {
                        *value = mem.read_obj(*addr).expect("read_obj");
                    }
                    black_box(&mut values);
                }
                let read = per_access(start);
                let start = Instant::now();
                for _ in 0..rounds {
                    for (addr, value) in addresses.iter().zip(black_box(&values)) {
                        mem.write_obj(*value, *addr).expect("write_obj");
                    }
                }
                format!("{load} {store} {read} {}", per_access(start))
            });
        }
    };
}

contender!(queue_plain, memory_plain, access_plain, ());
contender!(queue_tracked, memory_tracked, access_tracked, AtomicBitmap);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("argument {at}: {}", words[at]));
    match words.first().map(String::as_str) {
        Some("queue") => {
            let image = std::fs::read(&words[1]).expect("image");
            let ring = Ring {
                size: number(4) as u16,
                desc: number(5),
                avail: number(6),
                used: number(7),
                chains: number(8) as u16,
                event_idx: number(9) != 0,
                way: match words.get(10).map(String::as_str) {
                    None => Way::Walk,
                    Some("gather") => Way::Gather,
                    Some(_) => Way::Scatter,
                },
                bytes: words.get(11).map_or(0, |_| number(11) as usize),
            };
            let run = if number(3) != 0 { queue_tracked } else { queue_plain };
            run(&image, number(2) as usize, &ring);
        }
        Some("memory") if number(2) != 0 => memory_tracked(number(1) as usize),
        Some("memory") => memory_plain(number(1) as usize),
        Some("access") => {
            let run = if number(3) != 0 { access_tracked } else { access_plain };
            run(number(1) as usize, number(2) as usize);
        }
        _ => panic!("peer queue … | peer memory … | peer access …"),
    }
}
