//! What a process uses, as proc(5) tells it.

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Seconds of CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Of the process itself.
    pub own: f64,
    /// Of its children that ended and were waited for.
    pub children: f64,
}

/// CPU time of a process. None: there is no such process.
pub fn cpu(pid: u32) -> Option<Cpu> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may have any characters: fields 14 to 17 are utime, stime, cutime, cstime in 1/100 s.
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i - 3).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    // Its clock (clock_getcpuclockid(3)) tells nanoseconds; one that has ended has none.
    let exact = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).and_then(clock_gettime);
    let own = exact.map_or(ticks(14) + ticks(15), |time| time.num_nanoseconds() as f64 / 1e9);
    Some(Cpu { own, children: ticks(16) + ticks(17) })
}

/// Seconds of CPU time of processes together, and of their children that ended and were waited for. One that has ended
/// itself counts for nothing.
pub fn total_cpu(pids: impl IntoIterator<Item = u32>) -> f64 {
    pids.into_iter().filter_map(cpu).map(|cpu| cpu.own + cpu.children).sum()
}

/// Resident memory of a process, in bytes. None: there is no such process.
pub fn memory(pid: u32) -> Option<u64> {
    memory_line(pid, "VmRSS:")
}

/// The most that it was so far.
pub fn peak_memory(pid: u32) -> Option<u64> {
    memory_line(pid, "VmHWM:")
}

fn memory_line(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// What the descriptors of a process are open on, sorted. None: there is no such process.
pub fn descriptors(pid: u32) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    // One may have been closed in between.
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let mut open: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    open.sort();
    Some(open)
}

/// A process and all below it that live, in no order.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let children = children(*pid);
        found.extend(children);
        next += 1;
    }
    found
}

/// Children of a process, whichever of its threads started them.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Lets [`peak_memory`] of a process begin anew.
pub fn reset_peak(pid: u32) {
    // It may have ended by itself.
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
