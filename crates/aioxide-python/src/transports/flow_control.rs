//! Water marks of a write buffer (asyncio `transports._FlowControlMixin`).

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// asyncio's default high-water mark, in bytes.
pub const DEFAULT_HIGH: usize = 64 * 1024;

/// When a protocol is asked to pause and to resume writing.
pub struct WaterMarks {
    /// Above so many bytes the protocol is paused.
    pub high: usize,
    /// At so many bytes or fewer it is resumed.
    pub low: usize,
    /// Whether the protocol was paused and not yet resumed.
    pub protocol_paused: bool,
}

impl Default for WaterMarks {
    fn default() -> Self {
        Self::with_default(DEFAULT_HIGH)
    }
}

impl WaterMarks {
    /// Begin with another high-water mark than that of plain transports, in bytes.
    pub fn with_default(high: usize) -> Self {
        Self { high, low: high / 4, protocol_paused: false }
    }

    /// Set the marks as `WriteTransport.set_write_buffer_limits` documents, where `default` is the high one if neither
    /// is given; ValueError unless `high >= low >= 0`.
    pub fn set(&mut self, high: Option<isize>, low: Option<isize>, default: usize) -> PyResult<()> {
        let high = high.unwrap_or_else(|| low.map_or(default as isize, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if !(high >= low && low >= 0) {
            return Err(PyValueError::new_err(format!("high ({high}) must be >= low ({low}) must be >= 0")));
        }
        self.high = high.unsigned_abs();
        self.low = low.unsigned_abs();
        Ok(())
    }
}
