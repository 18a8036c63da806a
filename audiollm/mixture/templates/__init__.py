"""What tasks make of records: ``base`` (a record as tasks see it) → ``clips``, ``speech``, ``chats`` → ``registry``."""
