"""What a build has to show: figures of every stage, as data, as a table and as Markdown."""
