-- First the triggers: afterwards no statement uses the functions and tables any more.
DROP EVENT TRIGGER IF EXISTS switchback_trace_begins;
DROP EVENT TRIGGER IF EXISTS switchback_trace_drops;
DROP EVENT TRIGGER IF EXISTS switchback_trace_rewrites;
DROP EVENT TRIGGER IF EXISTS switchback_trace_ends;
