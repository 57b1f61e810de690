//! The memory that a server holds: what /proc/PID/statm calls resident (proc_pid_statm(5)).

use std::fs;
use std::io;

/// The resident bytes of a process.
pub fn resident(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    text.split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .map(|pages| pages * rustix::param::page_size() as u64)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("strange statm: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_touched_is_resident() {
        let before = resident(std::process::id()).expect("/proc is mounted");
        let memory = vec![1_u8; 64 << 20];
        let after = resident(std::process::id()).expect("/proc is mounted");
        assert!(after >= before + (48 << 20), "{before} {after} {}", memory.len());
    }
}
