def state(): pass
