//! One copy of the current context for all the handles that are made under it.
//!
//! asyncio copies the context for every callback. Nearly all of them wait under the same variables, in copies that fill the
//! memory by the thousand and that the garbage collector looks at again and again. The variables of a context are an
//! immutable mapping, to which the context object points. So handles that are made while the mapping is the same share a
//! copy, a *snapshot*, and each runs, if it runs, in a copy of that: mostly in the one in which the handle before it ran
//! and set no variable.
//!
//! CPython does not tell which mapping is the current one. It stands in the thread's state and in the context object, at
//! places that [`prepare`] finds by trying; where it finds none, every handle gets a copy of its own at once.
//!
//! # Invariants
//! - A snapshot that anybody else has is not entered, and Python code does not get to see it.
//! - No value of a variable visibly lives longer because of what is kept for the next handle: it is kept while a loop runs,
//!   and beyond the turn only where the variables are those of the context that the loop itself runs in, which cannot
//!   change meanwhile.
#![expect(unsafe_code, reason = "looks into the thread's state and into context objects")]

use std::ops::Range;

use pyo3::ffi;
use pyo3::prelude::*;

use super::call::release;
use super::collector::is_shared;
use super::context::{copy, copy_current, run_in};
use super::gil_cell::GilCell;

/// Where to look, in words.
#[derive(Clone, Copy)]
struct Places {
    /// The current context, in the thread's state.
    context: usize,
    /// The mapping, in a context object.
    mapping: usize,
}

struct Kept {
    /// `None` where they were not found.
    places: Option<Places>,
    snapshot: Option<Py<PyAny>>,
    /// A copy of a snapshot in which a callback ran that set no variable; nobody else has it.
    copy: Option<Py<PyAny>>,
    /// How many loops run, on all threads.
    loops: usize,
}

static KEPT: GilCell<Kept> = GilCell::new(Kept { places: None, snapshot: None, copy: None, loops: 0 });

/// The words of a thread's state that are looked through; it is longer in every version.
const STATE: Range<usize> = 0..40;

/// The words of a context object, after its header: the previous context, the mapping, weak references.
const CONTEXT: Range<usize> = 2..5;

/// Find the places.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    if cfg!(not(Py_GIL_DISABLED)) {
        let places = find(py)?;
        KEPT.with(py, |kept| kept.places = places);
    }
    Ok(())
}

/// See where the state points to a context while that is entered, and what changes in one when a variable is set.
fn find(py: Python<'_>) -> PyResult<Option<Places>> {
    let (first, second) = (copy_current(py)?, copy_current(py)?);
    let pointing_to = |context: &Py<PyAny>| {
        let wanted = context.as_ptr() as usize;
        let found = || Ok(STATE.filter(|place| state_word(py, *place) == wanted).collect::<Vec<_>>());
        run_in::<_, PyErr>(context.bind_borrowed(py), found)
    };
    let (places, others) = (pointing_to(&first)?, pointing_to(&second)?);
    let unchanged = copy(first.bind_borrowed(py))?;
    let variable = py.import("contextvars")?.getattr("ContextVar")?.call1(("aioxide",))?;
    run_in(first.bind_borrowed(py), || variable.call_method1("set", (true,)).map(drop))?;
    let changed: Vec<_> = CONTEXT.filter(|place| word(&first, *place) != word(&unchanged, *place)).collect();
    let again = copy(first.bind_borrowed(py))?;
    match (&*places, &*changed) {
        (&[context], &[mapping])
            if others == places
                && word(&first, mapping) != 0
                && word(&again, mapping) == word(&first, mapping)
                && word(&second, mapping) == word(&unchanged, mapping) =>
        {
            Ok(Some(Places { context, mapping }))
        }
        _ => Ok(None),
    }
}

/// A word of this thread's state.
fn state_word(_py: Python<'_>, place: usize) -> usize {
    debug_assert!(STATE.contains(&place), "beyond the state");
    // SAFETY: the thread is attached.
    let state = unsafe { ffi::PyThreadState_Get() }.cast::<usize>();
    // SAFETY: the state is made of words, and longer than `STATE`.
    let word = unsafe { state.add(place) };
    // SAFETY: as above; it is this thread's own, which is here.
    unsafe { word.read() }
}

/// A word of a context object.
fn word(context: &Py<PyAny>, place: usize) -> usize {
    // SAFETY: a live context object, which is made of words and longer than `CONTEXT`.
    unsafe { word_at(context.as_ptr(), place) }
}

/// # Safety
/// A live context object, and a place in `CONTEXT`.
unsafe fn word_at(context: *mut ffi::PyObject, place: usize) -> usize {
    debug_assert!(CONTEXT.contains(&place), "beyond the context");
    // SAFETY: as the caller promises.
    let word = unsafe { context.cast::<usize>().add(place) };
    // SAFETY: as above; it is read with the GIL held.
    unsafe { word.read() }
}

impl Places {
    /// The mapping of the current context, if there is one.
    #[inline]
    fn current(self, py: Python<'_>) -> Option<usize> {
        let current = state_word(py, self.context) as *mut ffi::PyObject;
        if current.is_null() {
            return None;
        }
        // SAFETY: what the state points to is the current context, which is alive.
        Some(unsafe { word_at(current, self.mapping) })
    }

    /// The mapping of a context.
    #[inline]
    fn mapping_of(self, context: &Py<PyAny>) -> usize {
        word(context, self.mapping)
    }
}

/// Return a copy of the current context that others may have, too: before it is entered or shown, a copy must
/// replace it if it [is shared](is_shared).
pub fn current(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let shared = KEPT.with(py, |kept| {
        let (Some(places), Some(snapshot)) = (kept.places, &kept.snapshot) else { return None };
        (places.current(py)? == places.mapping_of(snapshot)).then(|| snapshot.clone_ref(py))
    });
    if let Some(shared) = shared {
        return Ok(shared);
    }
    let snapshot = copy_current(py)?;
    let previous = KEPT.with(py, |kept| {
        let is_kept = kept.loops > 0 && kept.places.is_some();
        if is_kept { kept.snapshot.replace(snapshot.clone_ref(py)) } else { None }
    });
    drop(previous);
    Ok(snapshot)
}

/// Return a copy of a snapshot, to be entered and [given back](give_back).
#[inline]
pub fn take_copy(py: Python<'_>, snapshot: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    let kept = KEPT.with(py, |kept| {
        let places = kept.places?;
        if places.mapping_of(kept.copy.as_ref()?) == places.mapping_of(snapshot) {
            kept.copy.take()
        } else {
            None
        }
    });
    match kept {
        Some(copy) => Ok(copy),
        None => copy(snapshot.bind_borrowed(py)),
    }
}

/// As [`give_back`], where nothing must be lost: returns the copy if a variable was, or may have been, set in it.
#[inline]
pub fn give_back_unchanged(py: Python<'_>, copy: Py<PyAny>, snapshot: &Py<PyAny>) -> Option<Py<PyAny>> {
    // A token knows the context it is good for, also where the variable had the value before.
    if is_shared(copy.bind(py)) {
        return Some(copy);
    }
    let mut is_surplus = false;
    let left = KEPT.with(py, |kept| match kept.places {
        Some(places) if places.mapping_of(&copy) == places.mapping_of(snapshot) => {
            if kept.loops > 0 && kept.copy.is_none() {
                kept.copy = Some(copy);
                return None;
            }
            is_surplus = true;
            Some(copy)
        }
        _ => Some(copy),
    });
    match left {
        Some(surplus) if is_surplus => {
            release(py, surplus);
            None
        }
        left => left,
    }
}

/// Keep the copy for the next handle where it is as it was: no variable was set, and nobody has it.
#[inline]
pub fn give_back(py: Python<'_>, copy: Py<PyAny>, snapshot: &Py<PyAny>) {
    if let Some(changed) = give_back_unchanged(py, copy, snapshot) {
        release(py, changed);
    }
}

/// Run a loop, whose handles share snapshots. It calls [`end_turn`] after each turn.
pub fn shared_in_loop<R>(py: Python<'_>, run: impl FnOnce() -> R) -> R {
    KEPT.with(py, |kept| kept.loops += 1);
    let result = run();
    let (snapshot, copy) = KEPT.with(py, |kept| {
        kept.loops -= 1;
        (kept.snapshot.take(), kept.copy.take())
    });
    drop((snapshot, copy));
    result
}

/// Keep nothing for the next handle but what has the variables that the loop itself has.
#[inline]
pub fn end_turn(py: Python<'_>) {
    let (snapshot, copy) = KEPT.with(py, |kept| {
        let Some(places) = kept.places else { return (None, None) };
        let ours = places.current(py);
        let is_other = |context: &mut Py<PyAny>| Some(places.mapping_of(context)) != ours;
        (kept.snapshot.take_if(is_other), kept.copy.take_if(is_other))
    });
    // One by one, as they are rarely there.
    if let Some(snapshot) = snapshot {
        release(py, snapshot);
    }
    if let Some(copy) = copy {
        release(py, copy);
    }
}
