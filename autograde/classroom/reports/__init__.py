"""What teachers and learners get to read, and the files for learning management systems."""
