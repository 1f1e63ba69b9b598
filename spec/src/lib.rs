//! The standard as data: numbers, attributes, templates, the table of calls, messages, records, the seam, Platform.
