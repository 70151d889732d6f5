//! Plays driver scripts on the Rust `virtio-queue` crate and tells all that can be seen.
//!
//! `queue-peer BASE:SIZE…`: the regions of guest memory, in ascending order. First stdin gives the content of all of them,
//! one behind the other, with which each script begins; then frames, a length (u32) and so many bytes: a script. Each is
//! answered by a frame, its trace. All numbers are little-endian; `../differential/script.py` writes the scripts and
//! `../differential/rust.py` reads the traces. Who sends scripts is trusted; what is in them is a driver's, and is not.

use std::io::{self, BufWriter, Read, Write};
use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT, Reader, Writer};
use vm_memory::bitmap::{AtomicBitmap, Bitmap, RefSlice};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

type Memory = GuestMemoryMmap<AtomicBitmap>;

const PAGE: usize = 4096;
const MAX_SIZE: u16 = 16;

/// What a step found: the first byte of its record.
const FINE: u8 = 0;
const INDEX_ERROR: u8 = 1;
const OTHER_ERROR: u8 = 2;

/// A script under way; each `get` takes from its front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        front
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }
}

/// A chain that was popped; its buffers were found when it was, as the crate's users do.
struct Taken<'a> {
    head: u16,
    reader: Option<Reader<'a, RefSlice<'a, AtomicBitmap>>>,
    writer: Option<Writer<'a, RefSlice<'a, AtomicBitmap>>>,
}

/// Store as a guest does: no page is marked.
fn driver_writes(memory: &Memory, mut addr: u64, mut data: &[u8]) {
    while !data.is_empty() {
        let region = memory.find_region(GuestAddress(addr)).expect("the script writes outside of memory");
        let offset = addr - region.start_addr().0;
        let part = data.len().min((region.len() - offset) as usize);
        // SAFETY: offset + part is within the region, and nothing else holds a reference to its bytes.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), region.as_ptr().add(offset as usize), part) };
        addr += part as u64;
        data = &data[part..];
    }
}

fn record_chain<'a>(memory: &'a Memory, chain: DescriptorChain<&'a Memory>, out: &mut Vec<u8>) -> Taken<'a> {
    let reader = Reader::new(memory, chain.clone()).ok();
    let writer = Writer::new(memory, chain.clone()).ok();
    let head = chain.head_index();
    out.extend(head.to_le_bytes());
    out.push(u8::from(reader.is_some()) | u8::from(writer.is_some()) << 1);
    let segments: Vec<_> = chain.collect();
    out.extend((segments.len() as u32).to_le_bytes());
    for segment in segments {
        out.extend(segment.addr().0.to_le_bytes());
        out.extend(segment.len().to_le_bytes());
        out.push(u8::from(segment.is_write_only()));
    }
    Taken { head, reader, writer }
}

/// Pop up to `most` chains with one iterator.
fn pop<'a>(memory: &'a Memory, queue: &mut Queue, most: usize, taken: &mut Vec<Taken<'a>>, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend([FINE, 0, 0]);
    match queue.iter(memory) {
        Ok(chains) => {
            let before = taken.len();
            taken.extend(chains.take(most).map(|chain| record_chain(memory, chain, out)));
            let count = (taken.len() - before) as u16;
            out[at + 1..at + 3].copy_from_slice(&count.to_le_bytes());
        }
        Err(Error::InvalidAvailRingIndex) => out[at] = INDEX_ERROR,
        Err(_) => out[at] = OTHER_ERROR,
    }
}

fn pop_one<'a>(memory: &'a Memory, queue: &mut Queue, taken: &mut Vec<Taken<'a>>, out: &mut Vec<u8>) {
    match queue.pop_descriptor_chain(memory) {
        Some(chain) => {
            out.extend([FINE, 1, 0]);
            taken.push(record_chain(memory, chain, out));
        }
        None => out.extend([FINE, 0, 0]),
    }
}

/// Give chains back; `which` counts those that are out, in the order in which they were popped.
fn complete(memory: &Memory, queue: &mut Queue, taken: &mut Vec<Taken>, input: &mut Input) -> bool {
    let (which, written) = (usize::from(input.u8()), input.u32());
    // Where a difference was allowed the crate may hold fewer chains; the other side does not look any more.
    which < taken.len() && queue.add_used(memory, taken.remove(which).head, written).is_ok()
}

fn flag(result: Result<bool, Error>, out: &mut Vec<u8>) {
    match result {
        Ok(value) => out.extend([FINE, u8::from(value)]),
        Err(_) => out.extend([OTHER_ERROR, 0]),
    }
}

/// Read all that the chain has to read.
fn gather(taken: &mut [Taken], which: usize, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    let done = match taken.get(which).and_then(|chain| chain.reader.clone()) {
        Some(mut reader) => reader.read_to_end(&mut data).is_ok(),
        None => false,
    };
    out.push(if done { FINE } else { OTHER_ERROR });
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
}

/// Write all that fits of a pattern that begins with `seed`.
fn scatter(taken: &mut [Taken], which: usize, seed: u8, out: &mut Vec<u8>) {
    let done = match taken.get(which).and_then(|chain| chain.writer.clone()) {
        Some(mut writer) => {
            let room = writer.available_bytes();
            let data: Vec<u8> = (0..room).map(|at| seed.wrapping_add(at as u8)).collect();
            writer.write_all(&data).is_ok()
        }
        None => false,
    };
    out.extend([if done { FINE } else { OTHER_ERROR }, 0]);
}

fn make_queue(input: &mut Input) -> Queue {
    let mut queue = Queue::new(MAX_SIZE).expect("queue");
    let (size, flags, start) = (input.u16(), input.u8(), input.u16());
    let (desc, avail, used) = (input.u64(), input.u64(), input.u64());
    queue.set_size(size);
    queue.set_desc_table_address(Some(desc as u32), Some((desc >> 32) as u32));
    queue.set_avail_ring_address(Some(avail as u32), Some((avail >> 32) as u32));
    queue.set_used_ring_address(Some(used as u32), Some((used >> 32) as u32));
    queue.set_event_idx(flags & 1 != 0);
    queue.set_next_avail(start);
    queue.set_next_used(start);
    queue.set_ready(flags & 4 != 0);
    queue
}

/// One step of the device. What it saw comes first, then where the queue stands and what is in its used ring.
fn device_step<'a>(
    op: u8,
    header: &[u8],
    memory: &'a Memory,
    queue: &mut Queue,
    taken: &mut Vec<Taken<'a>>,
    input: &mut Input,
    out: &mut Vec<u8>,
) {
    match op {
        1 => pop(memory, queue, usize::from(input.u16()), taken, out),
        2 => pop_one(memory, queue, taken, out),
        3 => {
            let fine = complete(memory, queue, taken, input);
            out.extend([if fine { FINE } else { OTHER_ERROR }, 0]);
        }
        4 => {
            let fine = (0..input.u8()).fold(true, |fine, _| complete(memory, queue, taken, input) && fine);
            let wish = queue.needs_notification(memory);
            flag(if fine { wish } else { Err(Error::InvalidChain) }, out);
        }
        5 => flag(queue.needs_notification(memory), out),
        6 => flag(queue.enable_notification(memory), out),
        7 => flag(queue.disable_notification(memory).map(|()| false), out),
        8 => {
            for _ in 0..input.u8() {
                queue.go_to_previous_position();
                taken.pop();
            }
            out.extend([FINE, 0]);
        }
        9 => gather(taken, usize::from(input.u8()), out),
        10 => {
            let which = usize::from(input.u8());
            scatter(taken, which, input.u8(), out);
        }
        11 => {
            *queue = Queue::try_from(queue.state()).expect("a state that a queue had");
            out.extend([FINE, 0]);
        }
        12 => flag(Ok(make_queue(input).is_valid(memory)), out),
        13 => {
            *queue = make_queue(&mut Input(header));
            taken.clear();
            out.extend([FINE, 0]);
        }
        _ => panic!("no step {op}"),
    }
    out.extend(queue.next_avail().to_le_bytes());
    out.extend(queue.next_used().to_le_bytes());
    let mut ring = vec![0; 6 + 8 * usize::from(queue.size())];
    memory.read_slice(&mut ring, GuestAddress(queue.used_ring())).expect("a valid queue's used ring");
    out.extend((ring.len() as u16).to_le_bytes());
    out.extend(ring);
}

fn play(memory: &Memory, script: &[u8], out: &mut Vec<u8>) {
    let mut input = Input(script);
    let mut queue = make_queue(&mut input);
    let mut taken = Vec::new();
    let valid = queue.is_valid(memory);
    out.push(u8::from(valid));
    while valid && !input.0.is_empty() {
        match input.u8() {
            0 => {
                let (addr, count) = (input.u64(), input.u16());
                driver_writes(memory, addr, input.take(usize::from(count)));
            }
            op => device_step(op, script, memory, &mut queue, &mut taken, &mut input, out),
        }
    }
    // Whatever the compiler thinks of raw pointers: everything above happened before this.
    std::sync::atomic::fence(Ordering::SeqCst);
    let mut dirty = 0u64;
    let mut page = 0;
    for region in memory.iter() {
        for offset in (0..region.len() as usize).step_by(PAGE) {
            dirty |= u64::from(region.bitmap().dirty_at(offset)) << page;
            page += 1;
        }
    }
    out.extend(dirty.to_le_bytes());
    for region in memory.iter() {
        let mut content = vec![0; region.len() as usize];
        memory.read_slice(&mut content, region.start_addr()).expect("region");
        out.extend(content);
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

fn main() -> io::Result<()> {
    let ranges: Vec<(GuestAddress, usize)> = std::env::args()
        .skip(1)
        .map(|word| {
            let (base, size) = word.split_once(':').expect("BASE:SIZE");
            (GuestAddress(number(base)), number(size) as usize)
        })
        .collect();
    let memory = Memory::from_ranges(&ranges).expect("memory");
    let (mut stdin, mut stdout) = (io::stdin().lock(), BufWriter::new(io::stdout().lock()));
    let mut blank = vec![0; ranges.iter().map(|(_, size)| size).sum()];
    stdin.read_exact(&mut blank)?;
    let mut length = [0; 4];
    let mut script = Vec::new();
    let mut trace = Vec::new();
    while stdin.read_exact(&mut length).is_ok() {
        script.resize(u32::from_le_bytes(length) as usize, 0);
        stdin.read_exact(&mut script)?;
        let mut rest = &blank[..];
        for (base, size) in &ranges {
            driver_writes(&memory, base.0, &rest[..*size]);
            rest = &rest[*size..];
        }
        memory.iter().for_each(|region| region.get_mmap().bitmap().reset());
        trace.clear();
        play(&memory, &script, &mut trace);
        stdout.write_all(&(trace.len() as u32).to_le_bytes())?;
        stdout.write_all(&trace)?;
        stdout.flush()?;
    }
    Ok(())
}
