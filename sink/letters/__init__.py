"""Dead letters: rows that ClickHouse refused are kept whole, tried again, or given up with a trace."""
