//! Appending to a `bytearray` without a Python object around the bytes.
#![expect(unsafe_code, reason = "PyO3 leaves it to the caller that nobody else writes meanwhile")]

use pyo3::prelude::*;
use pyo3::types::PyByteArray;

/// `array.extend(data)`; BufferError while somebody views the array.
pub fn append(array: &Bound<'_, PyByteArray>, data: &[u8]) -> PyResult<()> {
    let length = array.len();
    array.resize(length + data.len())?;
    // SAFETY: the array is alive, the GIL is held, and no Python runs before the slice is gone.
    let memory = unsafe { array.as_bytes_mut() };
    memory[length..].copy_from_slice(data);
    Ok(())
}
