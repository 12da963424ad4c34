DESCRIBE TABLE (${as_select})
